from __future__ import annotations

import math

import pytest
import torch

from policy_accel.acceleration.noise_assignment import assignment_statistics


def test_statistics() -> None:
    data = torch.tensor([[[1.0], [2.0]], [[0.0], [-1.0]], [[2.0], [2.0]]])
    before = torch.tensor([[[0.0], [2.0]], [[1.0], [1.0]], [[2.0], [-1.0]]])
    permutation = torch.tensor([1, 0, 2])
    after = before[permutation]
    found = assignment_statistics(data, before, after, permutation)
    assert float(found.distance_before) == pytest.approx((1.0 + math.sqrt(5) + 3.0) / 3)
    assert float(found.distance_after) == pytest.approx((1.0 + 3.0 + 3.0) / 3)
    assert float(found.alignment) == pytest.approx((3.0 - 2.0 + 2.0) / 6)
    assert float(found.noise_square) == pytest.approx((0 + 4 + 1 + 1 + 4 + 1) / 6)
    assert float(found.rows_moved) == pytest.approx(2 / 3)
    mask = torch.tensor([[[True], [True]], [[True], [False]], [[False], [False]]])
    found = assignment_statistics(data.masked_fill(~mask, math.nan), before, after, permutation, mask)
    assert float(found.distance_before) == pytest.approx((1.0 + 1.0 + 0.0) / 3)
    assert float(found.distance_after) == pytest.approx((1.0 + 0.0 + 0.0) / 3)
    assert float(found.alignment) == pytest.approx((1.0 + 2.0 + 0.0) / 3)
    assert float(found.noise_square) == pytest.approx((1.0 + 1.0 + 0.0) / 3)
    assert all(value.ndim == 0 for value in vars(found).values())
