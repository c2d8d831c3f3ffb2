"""Statistics of one key of demonstrations, gathered a piece at a time, and what they say of its dimensions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

NOTICEABLE = 0.01  # share of a dimension's range from which a step of its type is a loss
_MOST_DIMENSIONS = 16  # a key with more gets one row for all of them
_LAST_BITS = 2.0**-40  # of float64 numbers that were computed, relative to them
_NOTHING = 1e-15  # what computing with float64 numbers near 1 leaves of 0


def rounding(dtype: np.dtype) -> float:
    """How far apart equal numbers of a type may lie, in units of their magnitude; 0 of whole numbers."""
    return max(float(np.finfo(dtype).eps), _LAST_BITS) if dtype.kind == "f" else 0.0


def never_changes(low: np.ndarray, high: np.ndarray, rounding: float | np.ndarray) -> np.ndarray:
    """Whether dimensions [D] with these extremes are constant but for `rounding`, whatever their unit: bool [D]."""
    low, high = low.astype(np.float64), high.astype(np.float64)
    allowed = np.maximum(rounding * np.maximum(np.abs(low), np.abs(high)), _NOTHING)
    constant: np.ndarray = np.isfinite(high - low) & (high - low <= np.where(rounding > 0, allowed, 0.0))
    return constant


def float_steps(low: np.ndarray, high: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """The step of a float type where dimensions [D] are largest, as a share of their range; 0 of one without range."""
    with np.errstate(invalid="ignore"):
        span = high.astype(np.float64) - low
        step = np.spacing(np.maximum(np.abs(low), np.abs(high)).astype(dtype)).astype(np.float64)
    share: np.ndarray = np.divide(step, span, out=np.zeros_like(span), where=span > 0)
    return share


def too_coarse(key: str, low: np.ndarray, high: np.ndarray) -> Iterator[str]:
    """A sentence where the float type of a key is too coarse for how little its dimensions [D] change."""
    if low.dtype.kind == "f":
        steps = np.where(never_changes(low, high, rounding(low.dtype)), 0.0, float_steps(low, high, low.dtype))
        rough = np.flatnonzero(steps >= NOTICEABLE)
        for first in rough[:1]:
            yield (
                f"data/{key} is stored as {low.dtype}, whose steps are {steps[first]:.0%} of the range of dimension "
                f"{first} ({low[first]:.9g} to {high[first]:.9g}); what was finer is lost in the file. Record "
                f"dimension {listed(rough)} as float64, or relative to a fixed point."
            )


def listed(things: Sequence[object] | np.ndarray) -> str:
    """Up to eight things, for a sentence."""
    return ", ".join(map(str, things[:8])) + (", ..." if len(things) > 8 else "")


class KeyStatistics:
    """Minimum, maximum and mean of a key's values, for the key and for each of its dimensions if they are few."""

    rows, ndim = 0, 0
    whole = True  # whether they are pictures that may hold 8-bit values as floats
    low: np.ndarray
    high: np.ndarray
    total: np.ndarray

    def add(self, values: np.ndarray) -> None:
        """Look at further rows [n, *shape]."""
        flat = values.reshape(len(values), -1)
        with np.errstate(invalid="ignore", over="ignore"):
            low, high, total = flat.min(0), flat.max(0), flat.sum(0, dtype=np.float64)
            if self.rows:
                low, high, total = np.minimum(self.low, low), np.maximum(self.high, high), self.total + total
            picture = values.dtype.kind == "f" and values.ndim == 4 and low.min() >= 0 and high.max() <= 255
            self.whole = bool(self.whole and picture and np.array_equal(flat, flat.round()))
        self.low, self.high, self.total = low, high, total
        self.rows, self.ndim = self.rows + len(flat), values.ndim

    def lines(self) -> Iterator[str]:
        """The statistics for people."""
        rows = list(zip(map(str, range(len(self.low))), self.low, self.high, self.total, strict=True))
        if len(self.low) > _MOST_DIMENSIONS:
            rows = [("all", self.low.min(), self.high.max(), self.total.mean())]
        for name, low, high, total in rows:
            yield f"    {name:>4}: min {float(low):<12.6g} max {float(high):<12.6g} mean {total / self.rows:.6g}"

    def doubtful(self, key: str) -> Iterator[str]:
        """What can be trained on but is probably a mistake, one sentence each."""
        dtype = self.low.dtype
        if self.ndim < 4 and self.rows > 1:
            if (constant := np.flatnonzero(never_changes(self.low, self.high, rounding(dtype)))).size:
                yield f"data/{key} never changes in dimension {listed(constant)}; leave it out if it carries nothing."
            yield from too_coarse(key, self.low, self.high)
        if self.whole and self.high.max() > 1:
            yield f"data/{key} holds 8-bit values as {dtype}, {dtype.itemsize} times the size; store images as uint8."
