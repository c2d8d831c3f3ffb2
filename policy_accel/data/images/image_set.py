"""The one form in which image sets are handed on: arrays, labels, names of the classes, and where they are from."""

from __future__ import annotations

import hashlib
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
        key: for a set that lies in the cache, the hash of what it was made of; None otherwise.
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
        fault = _image_fault(self.images) or _label_fault(self.labels, len(self.images), len(self.classes))
        if fault:
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
        """SHA-256 that tells this set from any other: of its content, or cheaply of its cache key, if it has one."""
        digest = hashlib.sha256()
        if self.key is not None:
            digest.update(f"key {self.key}".encode())
            return digest.hexdigest()
        digest.update(f"{self.images.dtype.str} {self.images.shape} {self.classes}".encode())
        for begin in range(0, len(self.images), _PIECE):
            digest.update(np.ascontiguousarray(self.images[begin : begin + _PIECE]).data)
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


def _image_fault(images: np.ndarray) -> str:
    if images.ndim != 4:
        return f"holds an array of shape {list(images.shape)}; images are [N, C, H, W]."
    if not images.size:
        return f"is empty (shape {list(images.shape)}); give a set with at least one image."
    if images.dtype == np.uint8:
        if images.shape[1] not in (1, 3):
            return f"has images of {images.shape[1]} channels; known are 1 (grey) and 3 (RGB)."
        return ""
    if images.dtype not in (np.float16, np.float32):
        return f"holds {images.dtype} values; images are uint8, latents float16 or float32."
    for begin in range(0, len(images), _PIECE):
        bad = np.flatnonzero(~np.isfinite(images[begin : begin + _PIECE]).all(axis=(1, 2, 3)))
        if bad.size:
            return f"latent {begin + bad[0]} has a value that is not finite; encode it again or leave it out."
    return ""


def _label_fault(labels: np.ndarray | None, images: int, classes: int) -> str:
    if labels is None:
        return f"has {classes} class names and no labels; give both or none." if classes else ""
    if labels.shape != (images,):
        found = f"{len(labels)} labels" if labels.ndim == 1 else f"labels of shape {list(labels.shape)}"
        return f"has {found} for {images} images; give one for each."
    if labels.dtype != np.int64:
        return f"has labels of type {labels.dtype}; they are integers from 0."
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if bad.size:
        return (
            f"label {labels[bad[0]]} of image {bad[0]} is outside 0..{classes - 1}, its {classes} classes; correct it."
        )
    return ""
