from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from policy_accel.images.metrics.sliced import sliced_wasserstein


def _normal(count: int, size: int, seed: int) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "m"), [(7, 7), (5, 8), (12, 1), (6, 9)])
def test_on_a_line_it_is_the_exact_distance_for_unequal_counts(n: int, m: int) -> None:
    a, b = _normal(n, 1, 1), _normal(m, 1, 2) * 2 + 1
    # Every image repeated until both sets have n m members: the same distributions, matched in sorted order.
    first = np.sort(np.repeat(a.numpy().ravel(), m).astype(np.float64))
    second = np.sort(np.repeat(b.numpy().ravel(), n).astype(np.float64))
    expected = np.sqrt(((first - second) ** 2).mean())
    assert sliced_wasserstein(a, b, projections=3) == pytest.approx(expected, rel=1e-5)


def test_equal_sets_are_at_distance_zero_in_any_order() -> None:
    a = _normal(50, 6, 1)
    assert sliced_wasserstein(a, a.flip(0)) == pytest.approx(0, abs=1e-6)
    assert sliced_wasserstein(a, torch.cat([a, a])) == pytest.approx(0, abs=1e-6)


def test_a_shift_gives_its_length_over_the_root_of_the_dimension() -> None:
    a = _normal(40, 9, 1)
    shift = torch.zeros(9)
    shift[3] = 6.0
    assert sliced_wasserstein(a, a + shift, projections=20_000) == pytest.approx(2.0, rel=0.02)


def test_a_stretch_agrees_with_the_quantiles_averaged_over_all_angles() -> None:
    a, b = _normal(300, 2, 1), _normal(200, 2, 2) * torch.tensor([3.0, 1.0])
    found = sliced_wasserstein(a, b, projections=400)
    angles = np.linspace(0, np.pi, 200, endpoint=False)
    levels = (np.arange(4000) + 0.5) / 4000
    squares = []
    for angle in angles:
        direction = np.array([np.cos(angle), np.sin(angle)])
        quantiles = [np.quantile(x.numpy() @ direction, levels, method="inverted_cdf") for x in (a, b)]
        squares.append(((quantiles[0] - quantiles[1]) ** 2).mean())
    assert found == pytest.approx(np.sqrt(np.mean(squares)), rel=0.05)


def test_directions_follow_from_the_seed() -> None:
    a, b = _normal(30, 5, 1), _normal(30, 5, 2)
    assert sliced_wasserstein(a, b, projections=4) == sliced_wasserstein(a, b, projections=4)
