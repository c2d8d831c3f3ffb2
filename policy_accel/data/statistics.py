"""Statistics of one key of demonstrations, gathered a piece at a time, and what they say of its dimensions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

NOTICEABLE = 0.01
"""Share of a dimension's range from which a step of its type is a loss."""
_MOST_DIMENSIONS = 16  # a key with more gets one row for all of them
_LAST_BITS = 2.0**-40  # of float64 numbers that were computed, relative to them
_NOTHING = 1e-15  # what computing with float64 numbers near 1 leaves of 0
_PIECE = 256  # steps looked at together, so that image arrays need no copy in floating point


def rounding(dtype: np.dtype) -> float:
    """How far apart equal numbers of a type may lie, in units of their magnitude; 0 of whole numbers."""
    return max(float(np.finfo(dtype).eps), _LAST_BITS) if dtype.kind == "f" else 0.0


def never_changes(low: np.ndarray, high: np.ndarray, rounding: float | np.ndarray) -> np.ndarray:
    """Whether dimensions [D] with these least and largest values are constant but for `rounding`: bool [D].

    The unit does not matter: what goes from 0 to 1e-9 changes.
    """
    low, high = low.astype(np.float64), high.astype(np.float64)
    allowed = rounding * np.maximum(np.abs(low), np.abs(high))
    span = high - low
    constant: np.ndarray = np.isfinite(span) & (span <= np.where(rounding > 0, np.maximum(allowed, _NOTHING), 0.0))
    return constant


def float_steps(low: np.ndarray, high: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """The step between neighbouring numbers of a float type where dimensions [D] are largest, as a share of their
    range; 0 of one without range."""
    with np.errstate(invalid="ignore"):
        span = high.astype(np.float64) - low
        step = np.spacing(np.maximum(np.abs(low), np.abs(high)).astype(dtype)).astype(np.float64)
    share: np.ndarray = np.divide(step, span, out=np.zeros_like(span), where=span > 0)
    return share


def listed(dimensions: Sequence[int] | np.ndarray) -> str:
    """Up to eight numbers of dimensions, for a sentence."""
    return ", ".join(map(str, dimensions[:8])) + (", ..." if len(dimensions) > 8 else "")


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
            constant = np.flatnonzero(never_changes(self._low, self._high, rounding(self.dtype)))
            if constant.size:
                yield f"data/{key} never changes in dimension {listed(constant)}; leave it out if it carries nothing."
            yield from self.coarse(key)
        if self._whole_bytes and self._high.max() > 1:
            yield (
                f"data/{key} holds 8-bit values as {self.dtype}, {self.dtype.itemsize} times the size; "
                "store images as uint8."
            )

    def coarse(self, key: str) -> Iterator[str]:
        """A sentence where the type of the file is too coarse for how little its numbers change."""
        if self._low is None or self._high is None or self.dtype.kind != "f":
            return
        steps = float_steps(self._low, self._high, self.dtype)
        steps[never_changes(self._low, self._high, rounding(self.dtype))] = 0.0
        rough = np.flatnonzero(steps >= NOTICEABLE)
        if rough.size:
            first = rough[0]
            yield (
                f"data/{key} is stored as {self.dtype}, whose steps are {steps[first]:.0%} of the range of dimension "
                f"{first} ({self._low[first]:.9g} to {self._high[first]:.9g}); what was finer is lost in the file. "
                f"Record dimension {listed(rough)} as float64, or relative to a fixed point."
            )


def _row(name: str, low: float, high: float, mean: float) -> str:
    return f"    {name:>4}: min {low:<12.6g} max {high:<12.6g} mean {mean:.6g}"
