"""From the bytes of an image file to pixels: upright, opaque and of 8 bits, at the wanted size."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from policy_accel.errors import UserError, one_line

if TYPE_CHECKING:
    from PIL import Image  # loaded where a file of an image is met: most sets are arrays

SUFFIXES = frozenset(
    (
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".heic", ".heif", ".gif", ".jp2"),
        *(".bmp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff"),
    )
)
TURNED = "were turned as their EXIF orientation says"
FLATTENED = "are transparent in places and were put on white"
NARROWED = "have more than 8 bits a channel, of which the upper 8 were taken"
FIRST = "have several frames, of which the first was taken"

_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
_GREY = frozenset(("1", "L", "LA", "La"))
_WIDE_GREY = ("I", "I;16", "I;16B", "I;16L")
_ORIENTATION = 0x0112


def is_image(start: bytes) -> bool:
    """Whether a file that begins with these bytes is of a common image format."""
    return start.startswith(_STARTS) or start[8:12] == b"WEBP" or start[4:8] == b"ftyp"


def upright(content: bytes, where: str) -> tuple[Image.Image, list[str]]:
    """Decode an image file as it is meant to be seen.

    Returns:
        The picture, grey (mode L) or RGB, and what was done to it, of TURNED, FLATTENED, NARROWED and FIRST.

    Raises:
        UserError: it is no image, cut off, damaged, or of numbers without a known range.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    done: list[str] = []
    try:
        with Image.open(io.BytesIO(content)) as opened:
            image: Image.Image = opened
            if image.mode == "F" or (image.mode == "I" and opened.format not in ("PNG", "PPM")):
                raise UserError(f"{where}: holds numbers without a range (mode {image.mode}); convert it to 8 bits.")
            if getattr(image, "is_animated", False):
                done.append(FIRST)
            if "16" in str([tile[3] for tile in opened.tile]):  # of RGB, Pillow itself takes the upper 8 bits
                done.append(NARROWED)
            if image.getexif().get(_ORIENTATION, 1) in range(2, 9):
                image = ImageOps.exif_transpose(image)
                done.append(TURNED)
            if image.mode in _WIDE_GREY:
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            mode = "L" if image.mode in _GREY else "RGB"
            if image.has_transparency_data:
                image = image.convert("RGBA")
                if image.getchannel("A").getextrema()[0] != 255:
                    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
                    done.append(FLATTENED)
            return image.convert(mode), done
    except UserError:
        raise
    except UnidentifiedImageError as error:
        if content[4:8] == b"ftyp":
            raise UserError(
                f"{where}: is AVIF or HEIC, which the installed Pillow cannot read; install pillow>=11.3 (AVIF), or "
                "convert it to PNG or JPEG."
            ) from error
        raise UserError(f"{where}: is not an image that can be read; replace it.") from error
    except Exception as error:  # Pillow raises nearly anything on damaged bytes
        raise UserError(f"{where}: cannot be decoded ({one_line(error)}); replace it.") from error


def decode(content: bytes, where: str, resolution: int | None) -> tuple[np.ndarray, list[str]]:
    """Pixels uint8 [C, H, W] of an image file, C 1 for grey and 3 for colour, and what was done, as `upright`.

    With a resolution the middle square is cut out and resized to it, as `resize` does.
    """
    image, done = upright(content, where)
    pixels = np.asarray(image if resolution is None else _square(image, resolution))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), done


def resize(images: np.ndarray, resolution: int) -> np.ndarray:
    """Cut out the middle square and resize it by a Lanczos filter that covers all source pixels.

    Args:
        images: uint8 [N, C, H, W], C 1 or 3.
        resolution: height and width wanted.

    Returns:
        uint8 [N, C, resolution, resolution].
    """
    from PIL import Image

    result = np.empty((*images.shape[:2], resolution, resolution), np.uint8)
    for image, target in zip(images, result, strict=True):
        for plane, to in zip(image, target, strict=True):
            to[:] = np.asarray(_square(Image.fromarray(plane), resolution))
    return result


def _square(image: Image.Image, resolution: int) -> Image.Image:
    from PIL.Image import Resampling

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if (side, side) != image.size:
        image = image.crop((left, top, left + side, top + side))
    return image if side == resolution else image.resize((resolution, resolution), Resampling.LANCZOS)
