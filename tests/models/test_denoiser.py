"""What a network of one's own inherits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policy_accel.models import Denoiser


class Own(Denoiser):
    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return x


def test_defaults_leave_the_condition_and_weight_decay_alone() -> None:
    own, condition = Own(), torch.ones(2, 3)
    assert own.encode(condition) is condition
    assert own.encode(None) is None
    assert own.no_weight_decay() == set()


def test_named_conditions_need_an_encoder() -> None:
    with pytest.raises(AssertionError, match="overrides encode"):
        Own().encode({"state": torch.ones(2, 3)})
