"""Some rows or channels of an array without a copy of them, so that a set that is mapped into memory stays so."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np


class ImageArray(Protocol):
    """What the users of images take of an array [N, C, H, W], which may be mapped into memory, or a subset of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, C, H, W]."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """uint8, or float16 or float32 of latents."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray | slice | int, /) -> np.ndarray: ...


class _Looked:
    """An array that is looked up in another one, `whole`, when it is asked for; see `ImageArray`."""

    whole: ImageArray
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""
        return self.whole.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that a copy would take."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: np.ndarray | slice | int) -> np.ndarray:
        raise NotImplementedError

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)


class ArraySubset(_Looked):
    """The rows `rows` of `whole` [N, ...].

    Args:
        whole: an array, or a subset of one.
        rows: [n] int64, which of its rows, in this order.
    """

    def __init__(self, whole: ImageArray, rows: np.ndarray) -> None:
        self.rows: np.ndarray
        if isinstance(whole, ArraySubset):
            self.whole, self.rows = whole.whole, whole.rows[rows]
        else:
            self.whole, self.rows = whole, rows
        self.shape = len(self.rows), *whole.shape[1:]

    def __getitem__(self, places: np.ndarray | slice | int) -> np.ndarray:
        return self.whole[self.rows[places]]


class ChannelSubset(_Looked):
    """The channels `channels` [c] of `whole` [N, C, ...]; one may be there several times."""

    def __init__(self, whole: ImageArray, channels: np.ndarray) -> None:
        self.whole, self.channels = whole, channels
        self.shape = len(whole), len(channels), *whole.shape[2:]

    def __getitem__(self, places: np.ndarray | slice | int) -> np.ndarray:
        return self.whole[places][..., self.channels, :, :]


def is_mapped(images: ImageArray) -> bool:
    """Whether the images lie in a file that is mapped into memory."""
    return is_mapped(images.whole) if isinstance(images, _Looked) else isinstance(images, np.memmap)
