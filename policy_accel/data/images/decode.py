"""From the bytes of an image file to pixels: upright, opaque and of 8 bits, at the wanted size."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from policy_accel.data.formats.base import decoding
from policy_accel.data.images.subset import ImageArray
from policy_accel.errors import UserError

if TYPE_CHECKING:
    from PIL import Image  # loaded where a file of an image is met: most sets are arrays

_NAMES = "png apng jpg jpeg jpe jfif webp avif heic heif gif jp2 bmp ppm pgm pbm tif tiff"
SUFFIXES = tuple(f".{name}" for name in _NAMES.split())
LATENT = ".npy"
_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")


def is_image(content: bytes) -> bool:
    """Whether a file begins like those of a common image format."""
    return content.startswith(_STARTS) or content[8:12] == b"WEBP" or content[4:8] == b"ftyp"


def upright(content: bytes, where: str, ground: str = "white") -> tuple[Image.Image, list[str]]:
    """An image file as it is meant to be seen, grey (mode L) or RGB, and what was done to it; where it is transparent
    it is put on `ground`. UserError where it is no image, cut off, damaged, or of numbers without a known range."""
    from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

    done: list[str] = []
    with decoding(where, "the image"):
        try:
            opened = Image.open(io.BytesIO(content))
        except Image.DecompressionBombError:
            most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            raise UserError(f"{where}: has more than the {most:,} pixels that Pillow opens; make it smaller.") from None
        except UnidentifiedImageError:
            newer = "AVIF or HEIC, which the installed Pillow cannot read; install pillow>=11.3, or convert it to PNG"
            kind = newer if content[4:8] == b"ftyp" else "not an image that can be read; replace it"
            raise UserError(f"{where}: is {kind}.") from None
        image: Image.Image = opened
        if image.mode == "F" or (image.mode == "I" and opened.format not in ("PNG", "PPM")):
            raise UserError(f"{where}: holds numbers without a range (mode {image.mode}); convert it to 8 bits.")
        if getattr(image, "is_animated", False):
            done.append("have several frames, of which the first was taken")
        if "16" in str([tile[3] for tile in opened.tile]):  # of RGB, Pillow itself takes the upper 8 bits
            done.append("have more than 8 bits a channel, of which the upper 8 were taken")
        if image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9):
            image = ImageOps.exif_transpose(image)
            done.append("were turned as their EXIF orientation says")
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
        if image.has_transparency_data:
            image = image.convert("RGBA")
            if image.getchannel("A").getextrema()[0] != 255:
                image = Image.alpha_composite(Image.new("RGBA", image.size, ground), image)
                done.append(f"are transparent in places and were put on {ground}")
        return image.convert(mode), done


def decode(content: bytes, where: str, resolution: int | None) -> tuple[np.ndarray, list[str]]:
    """Pixels uint8 [C, H, W] of an image file at the resolution, C 1 for grey and 3 for colour, or the latent float16
    or float32 [C, H, W] of a .npy file; and what was done, as `upright` says, as which it refuses."""
    if where.lower().endswith(LATENT):
        with decoding(where, "the latent"):
            values = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        values = values[0] if values.ndim == 4 and len(values) == 1 else values
        if values.ndim != 3 or values.dtype not in (np.float16, np.float32):
            found = f"{values.dtype} {list(values.shape)}"
            raise UserError(f"{where}: is {found}; encode latents as float16 or float32 [C, H, W].")
        return values, []
    image, done = upright(content, where)
    pixels = np.asarray(image if resolution is None else cut(image, (resolution, resolution)))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), done


def fitted(images: ImageArray, resolution: int | None, source: str) -> ImageArray:
    """Images uint8 or latents [N, C, H, W] at the resolution, to which the middle square of images is resized;
    UserError for images that are not square without a resolution, and for latents of another size than that."""
    height, width = images.shape[2:]
    if {height, width} == {resolution or height} or (images.dtype != np.uint8 and resolution is None):
        return images
    if images.dtype != np.uint8:
        remedy = f"cannot be resized to task.resolution={resolution}; set it to null or encode images of another size"
        raise UserError(f"{source}: holds latents of {width} x {height}, which {remedy}.")
    if resolution is None:
        remedy = "give task.resolution=SIZE to cut out the middle square and resize it"
        raise UserError(f"{source}: the images are {width} x {height} pixels, not square; {remedy}.")
    from PIL import Image

    pixels = np.asarray(images)
    result = np.empty((*pixels.shape[:2], resolution, resolution), np.uint8)
    for plane in np.ndindex(pixels.shape[:2]):
        result[plane] = np.asarray(cut(Image.fromarray(pixels[plane]), (resolution, resolution)))
    return result


def middle(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest box (left, top, right, bottom) in the middle of a picture of `size` (width, height) that has the
    proportions of `shape` (height, width): a square for a square."""
    scale = min(size[0] / shape[1], size[1] / shape[0])
    width, height = max(1, round(scale * shape[1])), max(1, round(scale * shape[0]))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def cut(image: Image.Image, shape: tuple[int, int]) -> Image.Image:
    """The middle of a picture, see `middle`, resized to `shape` by a Lanczos filter that covers all source pixels."""
    from PIL.Image import Resampling

    image = image.crop(middle(image.size, shape))
    return image if image.size == shape[::-1] else image.resize(shape[::-1], Resampling.LANCZOS)
