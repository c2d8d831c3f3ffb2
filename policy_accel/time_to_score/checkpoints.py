"""Which checkpoints of a run are scored."""

from __future__ import annotations

import numpy as np


def checkpoint_grid(first: int, last: int, number: int) -> list[int]:
    """Numbers of updates from `first` to `last`, ascending, evenly spaced on a logarithmic axis and rounded.

    Where rounding makes two equal there are fewer than `number`.

    Raises:
        ValueError: numbers that make no grid.
    """
    if not 1 <= first <= last:
        raise ValueError(f"checkpoints.first={first} must lie between 1 and checkpoints.last={last}.")
    if number < 1 or (number == 1 and first < last):
        raise ValueError(f"checkpoints.number={number} must be at least 2, for the first and the last one.")
    return sorted({round(float(step)) for step in np.geomspace(first, last, number)})
