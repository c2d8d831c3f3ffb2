import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

from policy_accel.data.images import image_form, read_images
from policy_accel.errors import UserError


@pytest.mark.parametrize("archive", [False, True])
def test_class_folders(tree, pictures, png, cache, archive):
    images = pictures(6)
    names = ["dog/b.png", "cat/x/1.png", "dog/a.PNG", "cat/0.png", "eel/7.png", "dog/c.png"]
    path = tree({name: png(image) for name, image in zip(names, images, strict=True)}, archive=archive)
    found = read_images(path, "train", cache_dir=cache)
    assert found.classes == ("cat", "dog", "eel")
    assert found.labels.tolist() == [0, 0, 1, 1, 1, 2]
    np.testing.assert_array_equal(found.images, images[[3, 1, 2, 0, 5, 4]])
    assert read_images(path, "test", cache_dir=cache) is None
    assert image_form(path) == "files of images"


@pytest.mark.parametrize("test_name", ["test", "val"])
@pytest.mark.parametrize("around", ["", "set/"])
def test_parts(tree, pictures, png, cache, test_name, around):
    images = pictures(4)
    names = ["Train/b/1.png", "Train/a/1.png", f"{test_name}/b/1.png", f"{test_name}/b/2.png"]
    path = tree({around + name: png(image) for name, image in zip(names, images, strict=True)}, archive=bool(around))
    train, test = (read_images(path, split, cache_dir=cache) for split in ("train", "test"))
    np.testing.assert_array_equal(train.images, images[[1, 0]])
    np.testing.assert_array_equal(test.images, images[2:])
    assert train.labels.tolist() == [0, 1]
    assert test.labels.tolist() == [1, 1]
    assert test.classes == ("a", "b")


def test_flat_folder_has_no_labels_and_other_files_do_not_count(tree, pictures, png, cache):
    images = pictures(3)
    files = {f"{number}.png": png(image) for number, image in enumerate(images)}
    files |= {"README.md": b"x", ".hidden.png": b"x", ".git/a.png": b"x", "__MACOSX/._0.png": b"x"}
    for archive in (False, True):
        found = read_images(tree(files, archive=archive), "train", cache_dir=cache)
        np.testing.assert_array_equal(found.images, images)
        assert (found.labels, found.classes) == (None, ())


def test_class_called_train(tree, pictures, png, cache):
    content = png(pictures(1)[0])
    found = read_images(tree({"bus/0.png": content, "train/0.png": content}), "train", cache_dir=cache)
    assert found.classes == ("bus", "train")
    files = {"train/a/0.png": content, "test/a/0.png": content, "unlabeled/0.png": content, "val/a/1.png": content}
    found = read_images(tree(files, "three"), "train", cache_dir=cache)
    assert (len(found), found.classes) == (1, ("a",))
    assert (
        "unlabeled, val: belongs to no part that is used and is left out; the parts are train and test."
        in found.remarks
    )


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("around", ["", "cifar/"])
def test_dataset_json(tree, pictures, png, cache, archive, around):
    images = pictures(4)
    names = ["00000/img00000000.png", "00000/img00000001.png", "00001/img00000002.png", "00001/img00000003.png"]
    files = {around + name: png(image) for name, image in zip(names, images, strict=True)}
    labels = [[name, label] for name, label in zip(names, (3, 0, 2, 0), strict=True)]
    for number, listed in enumerate((labels, list(reversed(labels)))):
        files[f"{around}dataset.json"] = json.dumps({"labels": listed}).encode()
        found = read_images(tree(files, f"set{number}", archive), "train", cache_dir=cache)
        assert found.labels.tolist() == [3, 0, 2, 0]
        assert found.classes == ("0", "1", "2", "3")
        np.testing.assert_array_equal(found.images, images)
    files[f"{around}dataset.json"] = b'{"labels": null}'
    found = read_images(tree(files, "unlabelled", archive), "train", cache_dir=cache)
    assert (found.labels, found.classes) == (None, ())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"labels": [["0.png", 1]]}', r"1\.png: has no class, as others have; .*skip_bad_images=true"),
        (
            b'{"labels": [["0.png", 1], ["1.png", 0], ["2.png", 0]]}',
            r"2\.png: is not there; add it",
        ),
        (b'{"labels": [["0.png", 1], ["1.png", -2]]}', r"1\.png: has no class, as others have"),
        (b'{"labels": [["0.png", 1], ["1.png", [0.5]]]}', r"1\.png: has no class, as others have"),
        (b'{"labels": {"0.png": 1}}', r"1\.png: has no class, as others have"),
        (b'{"labels": [1, 2]}', r'"labels" is no list of \["path", label\]'),
        (b'{"labels": ', r"dataset\.json: cannot be read"),
        (b"[" * 100_000, r"dataset\.json: cannot be read"),
        (b'{"labels": [["\xff.png", 1]]}', r"dataset\.json: cannot be read .*utf-8"),
    ],
)
def test_wrong_dataset_json(tree, pictures, png, cache, content, words):
    files = {f"{number}.png": png(image) for number, image in enumerate(pictures(2))}
    with pytest.raises(UserError, match=words):
        read_images(tree(files | {"dataset.json": content}), "train", cache_dir=cache)


def test_grey_becomes_rgb_where_others_are_and_alpha_is_put_on_white(tree, pictures, png, cache):
    grey, colour = pictures(1, channels=1)[0], pictures(1)[0]
    clear = np.concatenate([colour, np.full_like(grey, 255)])
    clear[3, :4] = 0
    files = {"0.png": png(grey), "1.png": png(clear), "2.webp": png(colour, "WEBP", lossless=True)}
    whole = read_images(tree(files), "train", cache_dir=cache)
    assert "1 images are transparent in places and were put on white, such as 1.png." in whole.remarks
    found = whole.images
    np.testing.assert_array_equal(found[0], np.repeat(grey, 3, axis=0))
    np.testing.assert_array_equal(found[1, :, 4:], colour[:, 4:])
    assert (found[1, :, :4] == 255).all()
    np.testing.assert_array_equal(found[2], colour)
    only_grey = read_images(tree({"0.png": png(grey)}, "grey"), "train", cache_dir=cache)
    np.testing.assert_array_equal(only_grey.images[0], grey)


def test_palette_and_jpeg(tree, png, cache, tmp_path):
    flat = np.full((3, 16, 16), 90, np.uint8)
    path = tree({"0.jpg": png(flat, "JPEG", quality=95)})
    Image.fromarray(flat.transpose(1, 2, 0)).convert("P", palette=Image.Palette.ADAPTIVE).save(path / "1.gif")
    found = read_images(path, "train", cache_dir=cache).images
    assert np.abs(found.astype(int) - 90).max() <= 1


def test_sizes_that_differ_and_resolution(tree, png, cache):
    ramp = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8), (3, 32, 64))
    path = tree({"wide.png": png(ramp), "small.png": png(ramp[:, :16, :16]), "tall.png": png(ramp.swapaxes(1, 2))})
    with pytest.raises(
        UserError,
        match=r"small\.png is uint8 \[3, 16, 16\] and tall\.png is uint8 \[3, 64, 32\]; give task",
    ):
        read_images(path, "train", cache_dir=cache)
    small, tall, wide = read_images(path, "train", resolution=16, cache_dir=cache).images
    np.testing.assert_array_equal(small, ramp[:, :16, :16])
    # The middle half of the ramp by averages of two columns, but for the two at each edge.
    expected = ramp[0, 0, 16:48].reshape(16, 2).mean(axis=1)
    assert np.abs(wide[0, 0, 2:-2] - expected[2:-2]).max() <= 1
    np.testing.assert_array_equal(tall, wide.swapaxes(1, 2))


def test_second_reading_decodes_nothing(tree, pictures, png, cache, monkeypatch):
    images = pictures(5)
    path = tree({f"a/{number}.png": png(image) for number, image in enumerate(images)})
    first = read_images(path, "train", cache_dir=cache)
    assert isinstance(first.images, np.memmap)
    monkeypatch.setattr("policy_accel.data.images.read.decode", None)
    again = read_images(path, "train", cache_dir=cache)
    np.testing.assert_array_equal(again.images, images)
    assert again.fingerprint() == first.fingerprint()
    assert len(list(cache.iterdir())) == 1


def test_changed_file_is_decoded_again(tree, pictures, png, cache):
    before, after = pictures(2)
    path = tree({"0.png": png(before)})
    first = read_images(path, "train", cache_dir=cache)
    (path / "0.png").write_bytes(png(after))
    os.utime(path / "0.png", ns=(1, 1))
    second = read_images(path, "train", cache_dir=cache)
    np.testing.assert_array_equal(second.images[0], after)
    assert second.fingerprint() != first.fingerprint()
    resized = read_images(path, "train", resolution=4, cache_dir=cache)
    assert resized.shape == (3, 4, 4)
    assert len({first.fingerprint(), second.fingerprint(), resized.fingerprint()}) == 3


def test_changed_labels_change_the_fingerprint(tree, pictures, png, cache):
    path = tree({f"{number}.png": png(image) for number, image in enumerate(pictures(2))})
    prints = set()
    for labels in ("[0, 1]", "[1, 0]"):
        one, two = json.loads(labels)
        (path / "dataset.json").write_text(json.dumps({"labels": [["0.png", one], ["1.png", two]]}))
        prints.add(read_images(path, "train", cache_dir=cache).fingerprint())
    assert len(prints) == 2
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("damage", ["array", "note", "missing"])
def test_damaged_cache_is_made_again(tree, pictures, png, cache, capsys, damage):
    images = pictures(5)
    path = tree({f"{number}.png": png(image) for number, image in enumerate(images)})
    read_images(path, "train", cache_dir=cache)
    (folder,) = cache.iterdir()
    if damage == "missing":
        (folder / "images.bin").unlink()
    else:
        file = folder / ("images.bin" if damage == "array" else "images.json")
        file.write_bytes(file.read_bytes()[:-10])
    np.testing.assert_array_equal(read_images(path, "train", cache_dir=cache).images, images)
    assert f"{folder}: is damaged and is made again" in capsys.readouterr().err


def test_default_cache(tree, pictures, png, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    read_images(tree({"0.png": png(pictures(1)[0])}), "train")
    assert len(list((tmp_path / "xdg/policy_accel/images").iterdir())) == 1


def test_failed_decoding_leaves_nothing(tree, pictures, png, cache):
    good = png(pictures(1, size=(32, 32))[0])
    for archive in (False, True):
        path = tree({"0.png": good, "1.png": good[: len(good) // 2]}, archive=archive)
        with pytest.raises(UserError, match=r"1\.png: the image is damaged \(.*\); copy or download .*, or skip such"):
            read_images(path, "train", cache_dir=cache)
        assert not list(cache.iterdir())


def test_progress_is_shown(tree, pictures, png, cache, capsys):
    read_images(tree({f"{n}.png": png(image) for n, image in enumerate(pictures(5))}), "train", cache_dir=cache)
    shown = capsys.readouterr().err
    assert "decode: 5/5 images" in shown


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"a/text.png": b"hello"}, r"a/text\.png: is not an image that can be read"),
        ({"lost.png": "image"}, r"lost\.png: has no class, as others have"),
        ({"latent.npy": b"x"}, r"holds latents \(latent\.npy\) beside images \(a/0\.png\)"),
    ],
)
def test_what_is_refused(tree, pictures, png, cache, change, words):
    content = png(pictures(1)[0])
    files = {"a/0.png": content} | {name: content if what == "image" else what for name, what in change.items()}
    with pytest.raises(UserError, match=words):
        read_images(tree(files), "train", cache_dir=cache)


def test_test_part_with_a_class_of_its_own(tree, pictures, png, cache):
    content = png(pictures(1)[0])
    path = tree({"train/a/0.png": content, "train/b/0.png": content, "test/c/0.png": content})
    with pytest.raises(UserError, match=r"test/c/0\.png: its class c is none of those known \(2 in "):
        read_images(path, "test", cache_dir=cache)


def test_numbers_without_a_range(tree, cache):
    path = tree({})
    Image.fromarray(np.zeros((4, 4), np.float32)).save(path / "0.tif")
    with pytest.raises(UserError, match=r"0\.tif: holds numbers without a range \(mode F\); convert it to 8 bits"):
        read_images(path, "train", cache_dir=cache)


def test_not_square(tree, pictures, png, cache):
    path = tree({"0.png": png(pictures(1, size=(8, 10))[0])})
    with pytest.raises(UserError, match=r"the images are 10 x 8 pixels, not square; give task\.resolution=SIZE"):
        read_images(path, "train", cache_dir=cache)


@pytest.mark.parametrize(
    ("files", "words"), [({}, "it holds no file"), ({"a.txt": b"x"}, "it holds 1 files such as a.txt")]
)
def test_no_image_set(tree, files, words):
    with pytest.raises(UserError, match=rf"is not an image set, {words}; known are folders"):
        read_images(tree(files), "train")


def test_broken_link(tree, pictures, png, cache):
    path = tree({"0.png": png(pictures(1)[0])})
    (path / "1.png").symlink_to(path / "gone.png")
    with pytest.raises(UserError, match=r"1\.png: does not exist, cannot read it; check the path, or skip such images"):
        read_images(path, "train", cache_dir=cache)
    assert len(read_images(path, "train", cache_dir=cache, skip_bad=True)) == 1


def test_disk_full(tree, pictures, png, cache, monkeypatch):
    path = tree({"0.png": png(pictures(1)[0])})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("policy_accel.files.os.fsync", full)
    with pytest.raises(UserError, match=r"cache/[0-9a-f]{32}: the disk is full"):
        read_images(path, "train", cache_dir=cache)
    assert not list(cache.iterdir())


def test_damaged_zip(tree, pictures, png, cache):
    content = png(pictures(1, size=(32, 32))[0])
    path = tree({"0.png": content}, archive=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(UserError, match=r"set\.zip: the archive is damaged \(File is not a zip file\)"):
        read_images(path, "train", cache_dir=cache)
    path.write_bytes(whole[:500] + bytes(10) + whole[510:])
    with pytest.raises(UserError, match=r"set\.zip/0\.png: the file is damaged \(Bad CRC-32"):
        read_images(path, "train", cache_dir=cache)


def test_no_permission(png, pictures, unprivileged):
    (unprivileged / "set").mkdir()
    file = unprivileged / "set/0.png"
    file.write_bytes(png(pictures(1)[0]))
    file.chmod(0)
    with pytest.raises(UserError, match=r"set/0\.png: no permission to read it"):
        read_images(unprivileged / "set", "train", cache_dir=unprivileged / "cache")
