"""Grids of images by class: a row for each with its name, and a picture for each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from policy_accel.images.generation.pictures import BACKGROUND, grid, shown_scale, write_png

if TYPE_CHECKING:
    from PIL import ImageFont

FONT_SIZE, MARGIN = 12, 4
MOST_ROWS, MOST_COLUMNS = 40, 16
LONGEST = 40


def named_rows(rows: Sequence[Tensor], names: Sequence[str]) -> np.ndarray:
    """Images in a row for each class, whose name stands before it, uint8 [height, width, 3].

    Args:
        rows: of each class uint8 [n, 1 or 3, H, W], or latents; as many of all.
        names: of the classes.
    """
    from PIL import Image, ImageDraw

    picture = grid(torch.cat(list(rows)), len(rows[0]), scale=shown_scale(rows[0].shape[-1]))
    font, shown = _font(), [_short(name) for name in names]
    margin = max(round(font.getlength(name)) for name in shown) + 2 * MARGIN
    canvas = Image.new("RGB", (margin + picture.shape[1], picture.shape[0]), (BACKGROUND,) * 3)
    canvas.paste(Image.fromarray(picture), (margin, 0))
    pen, height = ImageDraw.Draw(canvas), picture.shape[0] / len(rows)
    for row, name in enumerate(shown):
        pen.text((MARGIN, (row + 0.5) * height), name, fill="black", font=font, anchor="lm")
    return np.asarray(canvas)


def write_class_grids(folder: Path, names: Mapping[int, str], images: Mapping[int, Tensor]) -> None:
    """Write a new folder with a grid of the images [n, C, H, W] of each class by number, as 003_cat.png: the number,
    and of the name what a file may be called."""
    folder.mkdir()
    digits = len(str(max(names)))
    for number, name in names.items():
        file = re.sub(r"[^\w.-]+", "_", name)[:LONGEST].rstrip("_.")
        shown = grid(images[number], scale=shown_scale(images[number].shape[-1]))
        write_png(folder / f"{number:0{digits}d}_{file}.png", shown)


def _short(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which knows more alphabets than Pillow's own; matplotlib brings it along."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", FONT_SIZE)
