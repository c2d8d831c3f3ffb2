"""From the bytes of an image file to pixels of the wanted size and number of channels."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from policy_accel.errors import UserError

if TYPE_CHECKING:
    from PIL import Image  # loaded where a file of an image is met: most sets are arrays

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"))
_GREY = frozenset(("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F"))
_WIDE = frozenset(("I", "I;16", "I;16B", "I;16L", "F"))  # more than 8 bits


def look(file: BinaryIO, where: str) -> tuple[int, int, int]:
    """Channels (1 or 3), height and width of an encoded image, from its header.

    Raises:
        UserError: it is no image that Pillow knows, or one of more than 8 bits.
    """
    with file, _opened(file, where) as image:
        return 1 if image.mode in _GREY else 3, image.height, image.width


def decode(content: bytes, where: str, *, channels: int, resolution: int | None) -> np.ndarray:
    """Decode to uint8 [channels, H, W]; alpha is dropped, grey repeated where three channels are wanted.

    With a resolution the middle square is cut out and resized to it, as `resize` does.

    Raises:
        UserError: it is cut off or damaged.
    """
    with _opened(io.BytesIO(content), where) as image:
        try:
            if image.mode == "P":  # a palette hides alpha, which is dropped as everywhere
                image = image.convert("RGBA")
            pixels = image.convert("L" if channels == 1 else "RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{where}: cannot be decoded ({error}); replace it or leave it out.") from error
    if resolution is not None:
        pixels = _square(pixels, resolution)
    return np.atleast_3d(np.asarray(pixels)).transpose(2, 0, 1)


def resize(images: np.ndarray, resolution: int) -> np.ndarray:
    """Cut out the middle square and resize it by a Lanczos filter that covers all source pixels.

    Args:
        images: uint8 [N, C, H, W], C 1 or 3.
        resolution: height and width wanted.

    Returns:
        uint8 [N, C, resolution, resolution]; `images` itself if it has that size.
    """
    if images.shape[2:] == (resolution, resolution):
        return images
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


def _opened(file: BinaryIO, where: str) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(file)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{where}: is not an image that can be read; replace it or leave it out.") from error
    if image.mode in _WIDE:
        raise UserError(f"{where}: has more than 8 bits a channel ({image.mode}); convert it to 8 bits.")
    return image
