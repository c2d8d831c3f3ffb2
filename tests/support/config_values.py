"""A setting of a configuration by its name."""

from __future__ import annotations

from functools import reduce
from typing import Any


def value_of(config: Any, key: str) -> Any:
    """The value of "training.steps"."""
    return reduce(getattr, key.split("."), config)
