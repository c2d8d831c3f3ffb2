"""Which shape a picture shows, judged without training: the yardstick of what a model of the shapes generates.

The background is fitted from the border, the shape's coverage of each pixel follows from the colours, and its rotation
invariant moments are compared with those of many drawn examples (quadratic discriminant analysis, equal priors).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from policy_accel.data.images.shapes import DENSITIES, make_shapes
from policy_accel.errors import UserError

EXAMPLES = 256  # drawn of each class to fit its distribution of moments
_SEED = 7_081_987
_STREAM = 2  # neither the training nor the test part of any seed
_ORDERS = (0, 2, 3, 4, 5)  # angular frequencies: 2 tells a bar, 3 a triangle, 4 square and cross, 5 a star
_POWERS = (0.5, 1, 2, 4)  # of the distance from the middle
_FLOOR = 1e-3  # added to every variance: generated pictures are never quite as drawn ones
_DULL = 0.2  # coverage below it counts as none and above 1 less it as full, which keeps noise out of the moments
_PIECE = 2048  # pictures looked at together


def classify_shapes(images: np.ndarray) -> np.ndarray:
    """The class that each picture most resembles.

    Args:
        images: uint8 [N, 3, H, W] as `make_shapes` draws them, H = W at least 16.

    Returns:
        int64 [N], labels in the order of `DENSITIES`.

    Raises:
        UserError: other arrays than square RGB images of that size.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise UserError(
            f"the shapes are uint8 images [N, 3, S, S], not {images.dtype} {list(images.shape)}; give such images."
        )
    means, whitenings, penalties = _distributions(images.shape[2])
    labels = np.empty(len(images), np.int64)
    for begin in range(0, len(images), _PIECE):
        moments = _moments(images[begin : begin + _PIECE])
        distances = [
            (((moments - mean) @ whitening) ** 2).sum(axis=1) + penalty
            for mean, whitening, penalty in zip(means, whitenings, penalties, strict=True)
        ]
        labels[begin : begin + _PIECE] = np.argmin(distances, axis=0)
    return labels


@lru_cache(maxsize=4)
def _distributions(size: int) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
    """Of each class: mean [D], whitening [D, D] and log-determinant of the covariance of its moments."""
    labels = np.repeat(np.arange(len(DENSITIES)), EXAMPLES)
    moments = _moments(make_shapes(len(labels), size=size, seed=_SEED, stream=_STREAM, labels=labels).images)
    spread = moments.std(axis=0)
    means, whitenings, penalties = [], [], []
    for label in range(len(DENSITIES)):
        own = moments[labels == label]
        values, vectors = np.linalg.eigh(np.cov(own / spread, rowvar=False) + _FLOOR * np.eye(len(spread)))
        means.append(own.mean(axis=0))
        whitenings.append(vectors / np.sqrt(values) / spread[:, None])
        penalties.append(float(np.log(values).sum()))
    return means, whitenings, penalties


def _moments(images: np.ndarray) -> np.ndarray:
    """Moments of the coverage that rotation, shift and size leave alone, float64 [N, 21]."""
    coverage = _coverage(images.astype(np.float64))
    size = images.shape[2]
    pixels = np.arange(size) - (size - 1) / 2
    area = np.maximum(coverage.sum(axis=(1, 2)), 1.0)
    middle_x = (coverage.sum(axis=1) @ pixels) / area
    middle_y = (coverage.sum(axis=2) @ pixels) / area
    unit = np.sqrt(area)[:, None, None]
    x = (pixels[None, None, :] - middle_x[:, None, None]) / unit
    y = (pixels[None, :, None] - middle_y[:, None, None]) / unit
    reach = np.hypot(x, y)
    turn = (x + 1j * y) / np.maximum(reach, 1e-9)
    moments = [np.log(area)]
    for power in _POWERS:
        weight = coverage / area[:, None, None] * reach**power
        moments += [np.abs((weight * turn**order).sum(axis=(1, 2))) for order in _ORDERS]
    return np.stack(moments, axis=1)


def _coverage(images: np.ndarray) -> np.ndarray:
    """Share of each pixel that the shape covers: [N, 3, S, S] in 0..255 -> [N, S, S] in 0..1."""
    size = images.shape[2]
    steps = np.linspace(-1, 1, size)
    plane = np.stack(np.broadcast_arrays(1.0, steps[None, :], steps[:, None]), axis=-1)
    border = np.ones((size, size), bool)
    border[1:-1, 1:-1] = False
    fit = np.linalg.pinv(plane[border])  # [3, border]
    background = np.einsum("hwk,kb,ncb->nchw", plane, fit, images[:, :, border], optimize=True)
    difference = images - background
    strength = np.sqrt((difference**2).sum(axis=1)).reshape(len(images), -1)
    most = np.argsort(strength, axis=1)[:, -(size * size // 24) :]  # less than the smallest shape covers
    flat = images.reshape(len(images), 3, -1)
    colour = np.median(np.take_along_axis(flat, most[:, None, :], axis=2), axis=2)
    direction = colour[:, :, None, None] - background
    coverage = (difference * direction).sum(axis=1) / np.maximum((direction**2).sum(axis=1), 1.0)
    return np.clip((coverage - _DULL) / (1 - 2 * _DULL), 0, 1)
