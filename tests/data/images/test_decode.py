import numpy as np
import pytest
from PIL import Image

from policy_accel.data.images import read_images
from policy_accel.data.images.decode import upright
from policy_accel.errors import UserError

FLAG = np.zeros((8, 8, 3), np.uint8)  # red above blue
FLAG[:4, :, 0], FLAG[4:, :, 2] = 255, 255


def read(folder, cache, **options):
    found = read_images(folder, "train", cache_dir=cache, **options)
    return found.images, found.remarks


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_orientation_is_applied(tmp_path, cache, orientation, suffix):
    turns = Image.Transpose
    back = {
        **{2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM, 5: turns.TRANSPOSE},
        **{6: turns.ROTATE_90, 7: turns.TRANSVERSE, 8: turns.ROTATE_270},
    }
    flag = Image.fromarray(FLAG)
    stored = flag.transpose(back[orientation]) if orientation > 1 else flag
    tags = Image.Exif()
    tags[0x0112] = orientation
    (tmp_path / "set").mkdir()
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    stored.save(tmp_path / f"set/0.{suffix}", exif=tags, **options)
    images, remarks = read(tmp_path / "set", cache)
    assert np.abs(images[0].transpose(1, 2, 0).astype(int) - FLAG).max() <= 3
    turned = (f"1 images were turned as their EXIF orientation says, such as 0.{suffix}.",)
    assert remarks == (turned if orientation > 1 else ())
    assert read(tmp_path / "set", cache)[1] == remarks  # also when nothing is decoded


def test_size_is_that_of_the_turned_image(tmp_path, cache):
    """A photo on its side and one that is upright are of one size."""
    (tmp_path / "set").mkdir()
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.new("RGB", (12, 8)).save(tmp_path / "set/0.jpg", exif=tags)
    Image.new("RGB", (8, 12)).save(tmp_path / "set/1.jpg")
    with pytest.raises(UserError, match=r"the images are 8 x 12 pixels, not square"):
        read(tmp_path / "set", cache)


def shaded(path, mode, kind=np.uint16):
    """A file of 16 bits a channel: 40000 above 10000."""
    values = np.full((8, 8), 40000, kind)
    values[4:] = 10000
    if mode == "grey":
        Image.fromarray(values).save(path)
    else:
        import cv2

        cv2.imwrite(str(path), np.repeat(values[:, :, None], 3, axis=2))


@pytest.mark.parametrize("mode", ["grey", "colour"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_read_alike(tmp_path, cache, mode, suffix):
    (tmp_path / "set").mkdir()
    shaded(tmp_path / f"set/0.{suffix}", mode)
    images, remarks = read(tmp_path / "set", cache)
    assert images.shape[1] == (1 if mode == "grey" else 3)
    assert (images[0, :, :4] == 40000 >> 8).all()
    assert (images[0, :, 4:] == 10000 >> 8).all()
    assert remarks == (
        f"1 images have more than 8 bits a channel, of which the upper 8 were taken, such as 0.{suffix}.",
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparent_is_white(tmp_path, cache, mode):
    (tmp_path / "set").mkdir()
    picture = Image.new("RGBA", (8, 8), (10, 10, 10, 255))
    picture.paste((60, 60, 60, 0), (0, 0, 8, 4))
    options = {}
    if mode in ("P", "RGB"):
        options["transparency"] = 0 if mode == "P" else (60, 60, 60)
        picture = picture.convert("RGB").quantize(2) if mode == "P" else picture.convert("RGB")
        if mode == "P":
            options["transparency"] = picture.getpixel((0, 0))
    else:
        picture = picture.convert(mode)
    picture.save(tmp_path / "set/0.png", **options)
    images, remarks = read(tmp_path / "set", cache)
    assert images.shape[1] == (1 if mode == "LA" else 3)
    assert (images[0, :, :4] == 255).all()
    assert (images[0, :, 4:] == 10).all()
    assert remarks == ("1 images are transparent in places and were put on white, such as 0.png.",)


def test_first_frame_of_several(tmp_path, cache):
    (tmp_path / "set").mkdir()
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 90, 180)]
    frames[0].save(tmp_path / "set/0.gif", save_all=True, append_images=frames[1:])
    images, remarks = read(tmp_path / "set", cache)
    assert not images.any()
    assert remarks == ("1 images have several frames, of which the first was taken, such as 0.gif.",)


def test_cmyk_and_other_suffixes(tmp_path, cache):
    (tmp_path / "set").mkdir()
    flag = Image.fromarray(FLAG)
    flag.convert("CMYK").save(tmp_path / "set/0.jfif", "JPEG", quality=100)
    flag.save(tmp_path / "set/1.JPE", "JPEG", quality=100, subsampling=0)
    flag.save(tmp_path / "set/2.webp", lossless=True)
    flag.save(tmp_path / "set/3.png", "WEBP", lossless=True)
    images, remarks = read(tmp_path / "set", cache)
    assert np.abs(images.transpose(0, 2, 3, 1).astype(int) - FLAG).max() <= 6
    assert not remarks


def test_files_without_suffix_are_known_by_their_content(tmp_path, cache):
    (tmp_path / "set").mkdir()
    for number, kind in enumerate(("PNG", "JPEG", "WEBP", "GIF", "BMP")):
        Image.fromarray(FLAG).save(tmp_path / f"set/{number}", kind)
    (tmp_path / "set/README").write_text("pictures")
    assert len(read(tmp_path / "set", cache)[0]) == 5


def test_what_pillow_cannot_read_says_what_to_install():
    with pytest.raises(UserError, match=r"a\.heic: is AVIF or HEIC, which the installed Pillow cannot read; install"):
        upright(b"\0\0\0\x18ftypheic" + bytes(40), "a.heic")
