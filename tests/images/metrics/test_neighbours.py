from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from policy_accel.images.metrics import neighbours
from policy_accel.images.metrics.neighbours import manifold_measures, neighbour_radii


def _normal(count: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)) * scale + shift


def _brute_force(samples: Tensor, reference: Tensor, k: int) -> list[float]:
    """The definitions, one pair at a time, in float64."""
    x, y = reference.double().numpy(), samples.double().numpy()

    def radius(points: np.ndarray, i: int) -> float:
        others = np.delete(points, i, axis=0)
        return float(np.sort(np.linalg.norm(others - points[i], axis=1))[k - 1])

    real, fake = [radius(x, i) for i in range(len(x))], [radius(y, j) for j in range(len(y))]
    near = np.array([[np.linalg.norm(b - a) <= r for b in y] for a, r in zip(x, real, strict=True)])
    around = np.array([[np.linalg.norm(b - a) <= r for b, r in zip(y, fake, strict=True)] for a in x])
    return [near.any(0).mean(), around.any(1).mean(), near.sum() / (k * len(y)), near.any(1).mean()]


@pytest.mark.parametrize(("k", "n", "m"), [(1, 30, 41), (3, 30, 41), (5, 60, 6)])
def test_all_four_agree_with_their_definitions_over_several_blocks(
    monkeypatch: pytest.MonkeyPatch, k: int, n: int, m: int
) -> None:
    monkeypatch.setattr(neighbours, "ROWS", 7)
    samples, reference = _normal(n, 1, shift=0.5, scale=0.8) + 100, _normal(m, 2) + 100
    found = manifold_measures(samples, reference, k)
    expected = _brute_force(samples, reference, k)
    assert list(found.values()) == pytest.approx(expected, abs=1e-9)


def test_radii_leave_out_the_vector_itself_but_not_its_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "ROWS", 2)
    points = torch.tensor([[0.0], [0.0], [3.0], [7.0]])
    assert neighbour_radii(points, 1).tolist() == [0, 0, 9, 16]
    assert neighbour_radii(points, 2).tolist() == [9, 9, 9, 49]


def test_equal_distributions_reach_the_values_expected_of_real_data() -> None:
    found = manifold_measures(_normal(400, 1), _normal(400, 2), 5)
    assert found["precision"] > 0.9
    assert found["recall"] > 0.9
    assert found["density"] == pytest.approx(1, abs=0.1)
    # Naeem et al., equation 10: 1 - prod of (N - i) / (2 N - i), about 1 - 2^-k.
    assert found["coverage"] == pytest.approx(1 - 2**-5, abs=0.03)


def test_a_collapsed_and_a_scattered_set_lose_recall_and_precision() -> None:
    collapsed, scattered = (manifold_measures(_normal(200, 1, scale=s), _normal(200, 2), 5) for s in (0.1, 6.0))
    assert collapsed["precision"] > 0.95
    assert collapsed["recall"] < 0.1
    assert collapsed["coverage"] < 0.2
    assert scattered["precision"] < 0.2
    assert scattered["recall"] > 0.9
