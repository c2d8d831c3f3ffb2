"""Objects that hold tables."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor

Holder = TypeVar("Holder")


def moved(holder: Holder, device: torch.device | str) -> Holder:
    """A copy of `holder` whose attributes that are tensors lie on `device`; those that did already are shared."""
    copied = copy.copy(holder)
    for name, value in vars(holder).items():
        if isinstance(value, Tensor):
            object.__setattr__(copied, name, value.to(device))  # a frozen dataclass refuses the plain assignment
    return copied
