"""Arguments of the diffusers-compatible schedulers."""

from __future__ import annotations

import math
import operator
from itertools import pairwise
from typing import Any, SupportsIndex

import torch


def positive_count(field: str, value: SupportsIndex) -> int:
    """Return `value` when it is an integer of at least 1, else raise ValueError."""
    # numpy's and torch's integers are some too.
    if isinstance(value, bool) or not hasattr(value, "__index__") or (count := operator.index(value)) < 1:
        raise ValueError(f"{field}={value} must be an integer of at least 1.")
    return count


def check_bounds(config: Any) -> None:
    """Raise ValueError unless the config's bounds of a clean sample can be."""
    if config.thresholding and not 0 < config.dynamic_thresholding_ratio <= 1:
        raise ValueError(
            f"dynamic_thresholding_ratio={config.dynamic_thresholding_ratio} must lie above 0 and be at most 1."
        )
    if config.thresholding and not config.sample_max_value > 0:
        raise ValueError(f"sample_max_value={config.sample_max_value} must be positive.")
    if config.clip_sample and not config.clip_sample_range > 0:
        raise ValueError(f"clip_sample_range={config.clip_sample_range} must be positive; or choose clip_sample=False.")


def check_one_given(**choices: Any) -> None:
    """Raise ValueError unless just one of the arguments is given."""
    given = [name for name, value in choices.items() if value is not None]
    if len(given) != 1:
        raise ValueError(f"{', '.join(choices)}: give one of them, not {' and '.join(given) or 'none'}.")


def falling(field: str, values: Any) -> list[float]:
    """A sequence, array or tensor of numbers, which must fall from each to the next, as a list.

    Raises:
        ValueError: they do not, or there are none.
    """
    numbers: list[float] = torch.as_tensor(values).double().flatten().tolist()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{field}={numbers} must be finite numbers, and at least one.")
    for first, second in pairwise(numbers):
        if not second < first:
            raise ValueError(f"{field}: {second:g} follows {first:g}; each must be below the one before.")
    return numbers
