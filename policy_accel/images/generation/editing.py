"""What a user gives to make images from: pictures, and the mask of what to paint anew."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from policy_accel.data.images.decode import SUFFIXES, cut, middle, upright
from policy_accel.errors import UserError
from policy_accel.files import explained, open_regular

if TYPE_CHECKING:
    from PIL import Image

PAINTED_FROM = 128  # lightest shades of a mask, 128 to 255, are painted anew
MOST_LISTED = 5


@dataclass(frozen=True)
class Given:
    """Pictures as a model of images sees them: pixels uint8 [n, C, H, W]; the file and the (width, height) of each."""

    pixels: Tensor
    files: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]


def read_pictures(path: Path, shape: tuple[int, int, int]) -> Given:
    """The picture `path`, or the pictures of a folder in order of their names, as images of `shape` (C, H, W).

    As images to train on, they are turned as their EXIF orientation says, put on white where they are transparent, and
    their middle is cut out and resized; a remark says so. They are made colour or grey as the model needs.

    Raises:
        UserError: no picture there, or one that cannot be read.
    """
    files = _pictures_in(path) if path.is_dir() else [path]
    pixels, sizes, remarks = [], [], dict[str, list[str]]()
    for file in files:
        picture, done = _opened(file)
        sizes.append(picture.size)
        seen = cut(picture.convert("L" if shape[0] == 1 else "RGB"), shape[1:])
        if picture.size != seen.size:
            whole = middle(picture.size, shape[1:]) == (0, 0, *picture.size)
            how = "were" if whole else "had their middle cut out and"
            done.append(f"{how} resized to {shape[2]} x {shape[1]} pixels")
        for what in done:
            remarks.setdefault(what, []).append(file.name)
        pixels.append(np.asarray(seen).reshape(*shape[1:], shape[0]))
    for what, names in remarks.items():
        listed = ", ".join(names[:MOST_LISTED]) + (" ..." if len(names) > MOST_LISTED else "")
        warnings.warn(f"pictures that {what}: {listed}", stacklevel=2)
    return Given(torch.from_numpy(np.stack(pixels)).movedim(-1, 1).contiguous(), tuple(files), tuple(sizes))


def read_mask(text: str, size: tuple[int, int], given: Given) -> Tensor:
    """What to paint anew of each picture as the model sees it, bool [n, 1, H, W] of `size` (H, W).

    It is a box "x0,y0,x1,y1" or a picture whose light part it is, both in pixels of the picture as it was, turned
    upright; x1 and y1 are the first pixels beyond the box. A picture of a mask may also be of `size`. A pixel that the
    model sees is painted when any part of it is asked for.

    Raises:
        UserError: neither of the two, a box or a mask that does not fit a picture, or nothing to paint.
    """
    corners = text.split(",")
    if len(corners) == 4 and all(corner.strip().isdecimal() for corner in corners):
        box = [int(corner) for corner in corners]
        masks = [_box(box, text, *one) for one in zip(given.sizes, given.files, strict=True)]
    else:
        masks = _light(Path(text), size, given)
    seen = [_seen(mask, size) for mask in masks]
    for mask, file, size_of in zip(seen, given.files, given.sizes, strict=False):
        if not mask.any():
            raise UserError(
                f"--mask {text} marks nothing of the middle of {file}, which is what the model sees: "
                f"{','.join(map(str, middle(size_of, size)))}; mark some of that."
            )
    return torch.from_numpy(np.stack(seen))[:, None].expand(len(given.files), -1, -1, -1)


def _box(corners: list[int], text: str, size: tuple[int, int], file: Path) -> np.ndarray:
    x0, y0, x1, y1 = corners
    width, height = size
    if not (x0 < x1 <= width and y0 < y1 <= height):
        raise UserError(
            f"--mask {text} is not a box x0,y0,x1,y1 inside {file}, which is {width} x {height} pixels; choose "
            f"0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}."
        )
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _light(path: Path, size: tuple[int, int], given: Given) -> list[np.ndarray]:
    """The light part of a picture of a mask, which has the size of every picture, or the size that the model sees."""
    if not path.is_file():
        raise UserError(
            f"--mask {path} is neither a file nor a box x0,y0,x1,y1; give a PNG that is white where to paint."
        )
    picture, _ = _opened(path, ground="black")  # white strokes on a transparent layer are a mask of the strokes
    mask = np.asarray(picture.convert("L")) >= PAINTED_FROM
    if not mask.any():
        raise UserError(f"{path}: is dark everywhere, so nothing would be painted; make it white where to paint.")
    if mask.shape == size:
        return [mask]
    for file, (width, height) in zip(given.files, given.sizes, strict=True):
        if mask.shape != (height, width):
            raise UserError(
                f"{path}: is {mask.shape[1]} x {mask.shape[0]} pixels and {file} {width} x {height}; make it as large "
                f"as that, or {size[1]} x {size[0]}, which is what the model sees."
            )
    return [mask]


def _seen(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask of a whole picture as one of what the model sees: where any part of a pixel is marked."""
    from PIL import Image

    if mask.shape == size:
        return mask
    box = middle((mask.shape[1], mask.shape[0]), size)
    marked = Image.fromarray(mask.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BOX, box=box)
    return np.asarray(marked) > 1e-6


def _opened(path: Path, ground: str = "white") -> tuple[Image.Image, list[str]]:
    """A picture, upright and opaque, and what was done to it; transparent places show `ground`."""
    with open_regular(path) as file:
        return upright(file.read(), str(path), ground)


def _pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder in order of their names: files that are named as pictures, and others that are some."""
    with explained(folder, "read"):
        files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    pictures = [file for file in files if file.suffix.lower() in SUFFIXES or _is_picture(file)]
    if not pictures:
        raise UserError(f"{folder}: holds no pictures; give a picture, or a folder of some.")
    return pictures


def _is_picture(path: Path) -> bool:
    from PIL import Image, ImageFile

    with suppress(Exception), open_regular(path) as file, Image.open(file) as picture:  # decoders raise all sorts
        return not isinstance(picture, ImageFile.StubImageFile)
    return False
