"""Procedural pictures of eight shapes whose class densities are known: a real image set that needs no download.

Each picture is one antialiased shape of one bright colour, nearly upright, on a dark background lit softly from one of
four sides. Position, size, tilt and both colours vary, no more than a small network can learn in minutes. The shapes
are drawn from their signed distance in pixels: clip(1/2 - distance, 0, 1) of a pixel is covered.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policy_accel.data.images import ImageSet
from policy_accel.errors import UserError
from policy_accel.files import new_path

Floats = NDArray[np.float64]

SMALLEST = 16  # pixels; below, a star is no longer told from a circle
MARGIN = 1.0  # pixels around every shape that are background alone
RADIUS = (0.3, 0.42)  # radius of the circle around a shape, as a share of the picture's size
GRADIENT = 0.08  # change of the background from its middle to the edge on the bright side, as a share of the range
TILT = 15.0  # degrees to either side
DARK = 0.3  # brightest value of a background's middle, as a share of the range
BRIGHT = 0.4  # darkest value of a shape, as a share of the range
CONTRAST = 0.35  # least difference of brightness between shape and background's middle, as a share of the range

_BRIGHTNESS = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_VARIABLES = 12  # uniform numbers that make a picture
_PIECE = 1024  # pictures drawn together


def class_densities() -> np.ndarray:
    """Probability of each class, float64 [8], in the order of the labels."""
    return np.array([density for density, _ in SHAPES.values()])


def make_shapes(
    count: int, *, size: int = 24, seed: int, stream: int = 0, labels: np.ndarray | None = None
) -> ImageSet:
    """Draw pictures independently of one another; the first ones do not depend on `count`.

    Args:
        count: number of pictures.
        size: height and width in pixels, at least 16.
        seed: not negative; the same seed draws the same pictures.
        stream: another number gives other pictures of the same seed (0 is the training part, 1 the test part).
        labels: int64 [count], the class of each picture; None draws them with the densities.

    Returns:
        images uint8 [count, 3, size, size] with int64 labels 0..7.

    Raises:
        UserError: no picture, too small a size, a negative seed.
    """
    for name, value, least in (("images", count, 1), ("size", size, SMALLEST), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"{name} of the shapes is {value}; it must be at least {least}.")
    uniform = np.random.Generator(np.random.PCG64([seed, stream])).random((count, _VARIABLES))
    if labels is None:
        labels = np.searchsorted(np.cumsum(class_densities())[:-1], uniform[:, 0], side="right").astype(np.int64)
    images = np.empty((count, 3, size, size), np.uint8)
    for begin in range(0, count, _PIECE):
        rows = slice(begin, begin + _PIECE)
        images[rows] = _draw(uniform[rows, 1:], labels[rows], size)
    return ImageSet(images, labels, tuple(SHAPES), f"shapes (seed {seed}, {size} x {size})")


def write_images_npz(path: Path, train: ImageSet, test: ImageSet | None) -> None:
    """Write an NPZ that `read_images` reads, never over another one; the same sets give the same arrays.

    Raises:
        UserError: the file exists, the disk is full, no permission; parts that do not fit together.
    """
    arrays: dict[str, np.ndarray] = {}
    for prefix, part in (("", train), ("test_", test)):
        if part is None:
            continue
        if part.shape != train.shape or part.classes != train.classes or part.latents != train.latents:
            raise UserError(f"{path}: {part.source} has other images or classes than {train.source}; write two files.")
        name = "latents" if part.latents else "images"
        values = np.asarray(part.images)
        arrays[prefix + name] = values if part.latents else np.ascontiguousarray(values.transpose(0, 2, 3, 1))
        if part.labels is not None:
            arrays[f"{prefix}labels"] = part.labels
    if train.classes:
        arrays["classes"] = np.array(train.classes)
    with new_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _draw(uniform: np.ndarray, labels: np.ndarray, size: int) -> np.ndarray:
    """uniform [N, V - 1] in [0, 1), labels [N] -> uint8 [N, 3, size, size]."""
    radius = size * (RADIUS[0] + (RADIUS[1] - RADIUS[0]) * uniform[:, 0])
    room = size / 2 - MARGIN - radius
    middle = (2 * uniform[:, 1:3] - 1) * room[:, None]
    turn, side = np.deg2rad(TILT * (2 * uniform[:, 3] - 1) - 90), np.floor(4 * uniform[:, 4]) * np.pi / 2
    pixels = np.arange(size) - (size - 1) / 2
    x = pixels[None, None, :] - middle[:, 0, None, None]
    y = pixels[None, :, None] - middle[:, 1, None, None]
    scale = radius[:, None, None]
    cosine, sine = np.cos(turn)[:, None, None], np.sin(turn)[:, None, None]
    along, across = (cosine * x + sine * y) / scale, (cosine * y - sine * x) / scale
    outside = np.hypot(along, across) - 1  # the distance to a sharp tip is too small beyond it
    coverage = np.empty_like(along)
    for label, (_, distance) in enumerate(SHAPES.values()):
        rows = labels == label
        inside = np.maximum(distance(along[rows], across[rows]), outside[rows])
        coverage[rows] = np.clip(0.5 - scale[rows] * inside, 0, 1)
    steps = pixels / (size / 2)
    ramp = np.rint(np.cos(side))[:, None, None] * steps + np.rint(np.sin(side))[:, None, None] * steps[:, None]
    behind = GRADIENT + (DARK - GRADIENT) * uniform[:, 5:8]
    background = behind[:, :, None, None] + GRADIENT * ramp[:, None]
    colour = _contrasting(BRIGHT + (1 - BRIGHT) * uniform[:, 8:11], behind)
    picture = background + coverage[:, None] * (colour[:, :, None, None] - background)
    return np.asarray(np.clip(np.rint(255 * picture), 0, 255), np.uint8)


def _contrasting(colour: Floats, background: Floats) -> Floats:
    """Colours [N, 3], lightened on a background [N, 3] until they stand out."""
    brightness, behind = (values @ _BRIGHTNESS for values in (colour, background))
    lighter = np.minimum(1, np.maximum(1 - behind - CONTRAST, 0) / np.maximum(1 - brightness, 1e-9))[:, None]
    lightened: Floats = 1 - lighter * (1 - colour)
    return lightened


Distance = Callable[[Floats, Floats], Floats]


def _circle(x: Floats, y: Floats) -> Floats:
    return np.hypot(x, y) - 0.9


def _triangle(x: Floats, y: Floats) -> Floats:
    distance: Floats = np.maximum(-x, 0.5 * x + np.sqrt(0.75) * np.abs(y)) - 0.5
    return distance


def _ring(x: Floats, y: Floats) -> Floats:
    distance: Floats = np.abs(np.hypot(x, y) - 0.72) - 0.22
    return distance


def _cross(x: Floats, y: Floats) -> Floats:
    return np.minimum(_box(x, y, 0.95, 0.28), _box(x, y, 0.28, 0.95))


def _star(x: Floats, y: Floats) -> Floats:
    """Five tips at radius 1 and five notches at 0.42: one edge, folded ten times."""
    angle = np.abs((np.arctan2(y, x) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    reach = np.hypot(x, y)
    notch = 0.42 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    normal = np.array([notch[1], 1 - notch[0]]) / np.hypot(notch[1], 1 - notch[0])
    distance: Floats = normal[0] * (reach * np.cos(angle) - 1) + normal[1] * reach * np.sin(angle)
    return distance


def _crescent(x: Floats, y: Floats) -> Floats:
    return np.maximum(np.hypot(x, y) - 0.95, 0.8 - np.hypot(x - 0.55, y))


def _box(x: Floats, y: Floats, half_width: float, half_height: float) -> Floats:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


SHAPES: dict[str, tuple[float, Distance]] = {
    "circle": (0.22, _circle),
    "square": (0.18, partial(_box, half_width=0.7, half_height=0.7)),
    "triangle": (0.16, _triangle),
    "ring": (0.14, _ring),
    "cross": (0.11, _cross),
    "star": (0.08, _star),
    "crescent": (0.06, _crescent),
    "bar": (0.05, partial(_box, half_width=0.95, half_height=0.25)),
}
"""Name of each class -> its probability, and the signed distance of a point (x, y) to the shape inside the unit circle
(negative inside), exact up to corners; their order is that of the labels."""
