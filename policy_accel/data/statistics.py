"""Statistics of one key of demonstrations, gathered a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_MOST_DIMENSIONS = 16  # a key with more gets one row for all of them
_CONSTANT = 1e-4  # range below which normalisers take a dimension for constant
_PIECE = 256  # steps looked at together, so that image arrays need no copy in floating point


class KeyStatistics:
    """Minimum, maximum and mean of a key's values, for the key and for each of its dimensions if they are few.

    Args:
        shape: of a step's value.
        dtype: a number or truth value.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape, self.dtype = shape, dtype
        self.rows = 0
        self.width = int(np.prod(shape, dtype=np.int64))
        self._low: np.ndarray | None = None
        self._high: np.ndarray | None = None
        self._total = np.zeros(self.width if self.width <= _MOST_DIMENSIONS else 1)
        self._whole_bytes = dtype.kind == "f" and len(shape) == 3  # images that may hold 8-bit values

    def add(self, values: np.ndarray) -> None:
        """Look at further rows [n, *shape]."""
        flat = values.reshape(len(values), -1)
        with np.errstate(invalid="ignore", over="ignore"):
            for begin in range(0, len(flat), _PIECE):
                piece = flat[begin : begin + _PIECE]
                low, high = piece.min(0), piece.max(0)
                self._low = low if self._low is None else np.minimum(self._low, low)
                self._high = high if self._high is None else np.maximum(self._high, high)
                self._total += piece.sum(0 if len(self._total) > 1 else None, dtype=np.float64)
                if self._whole_bytes:
                    in_range = low.min() >= 0 and high.max() <= 255
                    self._whole_bytes = bool(in_range and np.array_equal(piece, piece.round()))
        self.rows += len(values)

    def lines(self) -> Iterator[str]:
        """The statistics for people."""
        if self._low is None or self._high is None:
            return
        if len(self._total) == 1:
            mean = self._total[0] / (self.rows * self.width)
            yield _row("all" if self.width > 1 else "0", self._low.min(), self._high.max(), mean)
            return
        for dimension in range(self.width):
            mean = self._total[dimension] / self.rows
            yield _row(str(dimension), self._low[dimension], self._high[dimension], mean)

    def doubtful(self, key: str) -> Iterator[str]:
        """What can be trained on but is probably a mistake, one sentence each."""
        if self._low is None or self._high is None:
            return
        if len(self.shape) < 3 and self.rows > 1:
            constant = np.flatnonzero(self._high.astype(np.float64) - self._low < _CONSTANT)
            if constant.size:
                listed = ", ".join(map(str, constant[:8])) + (", ..." if constant.size > 8 else "")
                yield f"data/{key} never changes in dimension {listed}; leave it out if it carries nothing."
        if self._whole_bytes and self._high.max() > 1:
            yield (
                f"data/{key} holds 8-bit values as {self.dtype}, {self.dtype.itemsize} times the size; "
                "store images as uint8."
            )


def _row(name: str, low: float, high: float, mean: float) -> str:
    return f"    {name:>4}: min {low:<12.6g} max {high:<12.6g} mean {mean:.6g}"
