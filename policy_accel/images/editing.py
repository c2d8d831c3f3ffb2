"""What a user gives to make images from: pictures, and the mask of what to paint anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from policy_accel.data.images.decode import SUFFIXES, upright
from policy_accel.errors import UserError
from policy_accel.files import open_regular

PAINTED_FROM = 128  # lightest shades of a mask, 128 to 255, are painted anew


def read_pictures(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """The picture `path`, or the pictures of a folder in order of their names, uint8 [n, C, H, W] of `shape` (C, H, W).

    They are turned as their EXIF orientation says, put on white where they are transparent, and made colour or grey as
    the model needs.

    Raises:
        UserError: no picture there, one that cannot be read, or one of another size.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise UserError(f"{path}: holds no pictures; give a picture, or a folder of some.")
    else:
        files = [path]
    mode = "L" if shape[0] == 1 else "RGB"
    pixels = [_read_picture(file, mode, shape[1:], "the model's images") for file in files]
    return torch.from_numpy(np.stack(pixels).reshape(len(pixels), *shape[1:], shape[0])).movedim(-1, 1).contiguous()


def read_mask(text: str, size: tuple[int, int]) -> Tensor:
    """What to paint anew, bool [H, W], from a box "x0,y0,x1,y1" or a picture of that size whose light part it is.

    A box is in pixels from the upper left corner; x1 and y1 are the first ones beyond it.

    Raises:
        UserError: neither of the two, another size, or nothing to paint.
    """
    height, width = size
    mask = torch.zeros(size, dtype=torch.bool)
    corners = text.split(",")
    if len(corners) == 4 and all(corner.strip().isdigit() for corner in corners):
        x0, y0, x1, y1 = (int(corner) for corner in corners)
        if not (x0 < x1 <= width and y0 < y1 <= height):
            raise UserError(
                f"--mask {text} is not a box x0,y0,x1,y1 inside an image of {width} x {height}; choose "
                f"0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}."
            )
        mask[y0:y1, x0:x1] = True
        return mask
    path = Path(text)
    if not path.is_file():
        raise UserError(
            f"--mask {text} is neither a file nor a box x0,y0,x1,y1; give a PNG that is white where to paint."
        )
    mask = torch.from_numpy(_read_picture(path, "L", size, "the image") >= PAINTED_FROM)
    if not bool(mask.any()):
        raise UserError(f"{path}: is dark everywhere, so nothing would be painted; make it white where to paint.")
    return mask


def _read_picture(path: Path, mode: str, size: tuple[int, int], what: str) -> np.ndarray:
    """Pixels uint8 [H, W] or [H, W, 3] of a file."""
    with open_regular(path) as file:
        picture, _ = upright(file.read(), str(path))
    if picture.size != (size[1], size[0]):
        raise UserError(
            f"{path}: is {picture.width} x {picture.height} pixels and {what} {size[1]} x {size[0]}; resize it to that."
        )
    return np.asarray(picture.convert(mode))
