"""The one form in which image sets are handed on: arrays, labels, names of the classes, and where they are from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from policy_accel.errors import UserError

Split = Literal["train", "test"]

_PIECE = 4096  # rows looked at together, so that a memory-mapped set is never in memory as a whole


@dataclass(frozen=True)
class ImageSet:
    """Images of one size, or latents of one size, with labels or without.

    Attributes:
        images: uint8 [N, C, H, W] with C 1 or 3, or latents float16 or float32 [N, C, H, W]; may be memory-mapped.
        labels: int64 [N] in 0..number of classes - 1; None without labels.
        classes: names of the classes in the order of the labels; () without labels.
        source: where they were read, for messages.
        key: of images that lie in the cache or are mapped, what they were made of; None otherwise.
        remarks: what was converted, assumed or left out in reading, one sentence each, without the source.
        skipped: one sentence for each image that could not be read and was left out.

    Raises:
        UserError: no image, another type or number of axes, labels that do not fit, latents that are not finite.
    """

    images: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    source: str
    key: str | None = None
    remarks: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if fault := next(self._faults(), None):
            raise UserError(f"{self.source}: {fault}")

    @property
    def latents(self) -> bool:
        """Whether the arrays are latents of an autoencoder, not images."""
        return self.images.dtype.kind == "f"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        """SHA-256 that tells this set from any other: of its content, of which a key stands for the images."""
        digest = hashlib.sha256(f"{self.images.dtype.str} {self.images.shape} {self.classes}{self.key or ''}".encode())
        for array in (self.images if self.key is None else (), () if self.labels is None else self.labels):
            for begin in range(0, len(array), _PIECE):
                digest.update(np.ascontiguousarray(array[begin : begin + _PIECE]).data)
        return digest.hexdigest()

    def _faults(self) -> Iterator[str]:
        kind, shape, labels, count = self.images.dtype, self.images.shape, self.labels, len(self.classes)
        if len(shape) != 4 or 0 in shape:
            yield f"holds an array of shape {list(shape)}; images are [N, C, H, W], one at least."
        if kind not in (np.uint8, np.float16, np.float32):
            yield f"holds {kind} values; images are uint8, latents float16 or float32."
        if kind == np.uint8 and shape[1] not in (1, 3):
            yield f"has images of {shape[1]} channels; known are 1 (grey) and 3 (RGB)."
        for begin in range(0, len(self) if self.latents else 0, _PIECE):
            for row in np.flatnonzero(~np.isfinite(self.images[begin : begin + _PIECE]).all(axis=(1, 2, 3))):
                yield f"latent {begin + row} has a value that is not finite; encode it again or leave it out."
        if labels is None and count:
            yield f"has {count} class names and no labels; give both or none."
        if labels is None:
            return
        if labels.shape != shape[:1] or labels.dtype != np.int64:
            found = f"{labels.dtype} {list(labels.shape)}"
            yield f"has labels {found} for {len(self)} images; give one integer from 0 for each."
        for row in np.flatnonzero((labels < 0) | (labels >= count)):
            yield f"label {labels[row]} of image {row} is outside 0..{count - 1}, its {count} classes; correct it."
