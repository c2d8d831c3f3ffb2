"""The permutation has the smallest cost of its metric."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from support.assignments import assert_is_permutation, cost_by_hand, total
from support.tensors import generator, normal
from torch import Tensor

from policy_accel.acceleration.noise_assignment import METRICS, assign_noise


def smallest_total(cost: np.ndarray, labels: list[int]) -> float:
    """The best permutation that keeps every noise inside its group, by trying all."""
    rows = range(len(cost))
    permutations = (p for p in itertools.permutations(rows) if all(labels[i] == labels[p[i]] for i in rows))
    return min(sum(cost[i, p[i]] for i in rows) for p in permutations)


def test_squared_and_unsquared_distance_differ() -> None:
    data, noise = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [2.0, 1.0]])
    assert assign_noise(data, noise, metric="l2").permutation.tolist() == [1, 0]
    assert total(cost_by_hand(data, noise, "l2"), torch.tensor([1, 0])) == pytest.approx(2.2361, abs=5e-5)
    for metric in ("l2sq", "dot"):
        assert assign_noise(data, noise, metric=metric).permutation.tolist() == [0, 1]
    assert total(cost_by_hand(data, noise, "l2sq"), torch.tensor([0, 1])) == pytest.approx(3.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_eight_points(dtype: torch.dtype) -> None:
    source = np.random.default_rng(0)
    x = torch.from_numpy(source.standard_normal((8, 3)))
    n = torch.from_numpy(source.standard_normal((8, 3)))
    l2, l2sq = cost_by_hand(x, n, "l2"), cost_by_hand(x, n, "l2sq")
    identity = torch.arange(8)
    assert total(l2, identity) == pytest.approx(17.097654, abs=1e-6)
    assert total(l2sq, identity) == pytest.approx(41.451890, abs=1e-6)

    found = assign_noise(x.to(dtype), n.to(dtype), metric="l2")
    assert found.permutation.tolist() == [7, 3, 0, 1, 2, 4, 6, 5]
    assert total(l2, found.permutation) == pytest.approx(9.587980, abs=1e-6)
    for metric in ("l2sq", "dot"):
        found = assign_noise(x.to(dtype), n.to(dtype), metric=metric)
        assert found.permutation.tolist() == [7, 3, 0, 4, 2, 1, 6, 5]
        assert total(l2sq, found.permutation) == pytest.approx(13.333836, abs=1e-6)

    found = assign_noise(x.to(dtype), n.to(dtype), metric="l2", standardize=True)
    assert found.permutation.tolist() == [7, 3, 0, 1, 2, 4, 6, 5]
    standardized = (x - x.mean(0)) / x.std(0, unbiased=False)
    assert total(cost_by_hand(standardized, n, "l2"), found.permutation) == pytest.approx(10.105480, abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(12))
def test_equals_trying_every_permutation(metric: str, seed: int) -> None:
    batch = 1 + seed % 6
    data, noise = normal(batch, 2, 3, seed=seed), normal(batch, 2, 3, seed=100 + seed)
    labels = torch.randint(3, (batch,), generator=generator(seed))
    masks = [None, torch.rand(batch, 2, 3, generator=generator(seed)) < 0.5, torch.tensor([True, False, True])]
    for mask in masks:
        cost = cost_by_hand(data, noise, metric, mask)
        for groups in (None, labels):
            found = assign_noise(data, noise, metric=metric, mask=mask, groups=groups)
            assert_is_permutation(found, noise)
            allowed = [0] * batch if groups is None else labels.tolist()
            best = smallest_total(cost, allowed)
            assert total(cost, found.permutation) == pytest.approx(best, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("masked", [False, True])
def test_reaches_the_optimum_of_a_large_batch(metric: str, masked: bool) -> None:
    data, noise = normal(256, 32), normal(256, 32, seed=1)
    mask = torch.rand(256, 32, generator=generator(2)) < 0.7 if masked else None
    cost = cost_by_hand(data, noise, metric, mask)
    found = assign_noise(data, noise, metric=metric, mask=mask)
    assert_is_permutation(found, noise)
    best = float(cost[linear_sum_assignment(cost)].sum())
    assert total(cost, found.permutation) == pytest.approx(best, rel=1e-6)
    assert total(cost, found.permutation) < total(cost, torch.arange(256)) - 0.02 * abs(best)


@pytest.mark.parametrize("metric", ["dot", "l2sq"])
def test_shifting_or_scaling_the_data_changes_nothing(metric: str) -> None:
    data, noise = normal(64, 12, dtype=torch.float64), normal(64, 12, seed=1, dtype=torch.float64)
    plain = assign_noise(data, noise, metric=metric).permutation
    for changed in (data + 3.0, data + normal(12, seed=2, dtype=torch.float64), 0.2 * data, 7.0 * data):
        assert torch.equal(assign_noise(changed, noise, metric=metric).permutation, plain)


def test_the_unsquared_distance_depends_on_the_scale() -> None:
    data, noise = normal(64, 4), normal(64, 4, seed=1)
    plain = assign_noise(data, noise, metric="l2").permutation
    assert not torch.equal(assign_noise(0.2 * data, noise, metric="l2").permutation, plain)
    # What the noise is compared with is then the standardised data, whatever its own scale and centre.
    standardized = assign_noise(data, noise, metric="l2", standardize=True).permutation
    moved = assign_noise(50.0 * data - 9.0, noise, metric="l2", standardize=True).permutation
    assert torch.equal(moved, standardized)


def test_a_mask_of_each_sample_enters_the_noise_norm() -> None:
    data, noise = normal(64, 6), normal(64, 6, seed=1)
    mask = torch.arange(6) < torch.randint(1, 7, (64, 1), generator=generator(2))
    found = {metric: assign_noise(data, noise, metric=metric, mask=mask).permutation for metric in METRICS}
    assert not torch.equal(found["dot"], found["l2sq"])
    for metric in METRICS:
        cost = cost_by_hand(data, noise, metric, mask)
        assert total(cost, found[metric]) == pytest.approx(cost[linear_sum_assignment(cost)].sum(), rel=1e-5)


def test_standardizing_uses_the_statistics_of_the_batch() -> None:
    data = normal(64, 5) * torch.tensor([0.01, 1.0, 5.0, 0.0, 30.0]) + torch.tensor([3.0, 0.0, -2.0, 0.3, 40.0])
    noise = normal(64, 5, seed=1)
    mask = torch.rand(64, 5, generator=generator(2)) < 0.7
    for metric in METRICS:
        for counted in (torch.ones_like(mask), mask):
            values = np.ma.masked_array(data.double().numpy(), ~counted.numpy())
            deviation = np.maximum(values.std(0).filled(0.0), 1e-6)
            standardized = torch.from_numpy(((values - values.mean(0)) / deviation).filled(0.0))
            standardized[:, 3] = 0.0  # constant
            cost = cost_by_hand(standardized, noise, metric, counted)
            found = assign_noise(data.double(), noise, metric=metric, mask=counted, standardize=True)
            best = cost[linear_sum_assignment(cost)].sum()
            assert total(cost, found.permutation) == pytest.approx(best, rel=1e-6)
            assert not torch.equal(
                assign_noise(data, noise, metric=metric, mask=counted).permutation, found.permutation
            )


def test_a_cost_may_be_added_to_the_square() -> None:
    data, noise, conditions = normal(96, 8), normal(96, 8, seed=1), normal(96, 3, seed=2)
    extra = torch.cdist(conditions, conditions)

    def weighed(weight: float) -> Tensor:
        return assign_noise(data, noise, metric="l2sq", adjust_cost=lambda cost: cost + weight * extra).permutation

    for weight in (0.0, 2.0, 1e6):
        cost = cost_by_hand(data, noise, "l2sq") + weight * cdist(conditions.double(), conditions.double())
        best = cost[linear_sum_assignment(cost)].sum()
        assert total(cost, weighed(weight)) == pytest.approx(best, rel=1e-6, abs=1e-3)
    assert weighed(1e6).tolist() == list(range(96))
    moved = float((conditions - conditions[weighed(2.0)]).norm(dim=1).mean())
    blind = assign_noise(data, noise, metric="l2sq").permutation
    assert 0 < moved < 0.7 * float((conditions - conditions[blind]).norm(dim=1).mean())


def test_costs_ignore_autocast_and_gradients() -> None:
    data, noise = normal(64, 32).requires_grad_(), normal(64, 32, seed=1)
    for metric in METRICS:
        plain = assign_noise(data, noise, metric=metric)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = assign_noise(data, noise, metric=metric)
        assert torch.equal(cast.permutation, plain.permutation)
        assert not plain.noise.requires_grad


def test_float64_data_has_a_float64_cost() -> None:
    # The pairs differ by 1e-10, which float32 cannot see beside 1.
    data = torch.tensor([[1.0], [1.0 + 1e-10]], dtype=torch.float64)
    noise = torch.tensor([[2.0], [1.0]], dtype=torch.float64)
    assert assign_noise(data, noise, metric="dot").permutation.tolist() == [1, 0]
    assert assign_noise(data.flip(0), noise, metric="dot").permutation.tolist() == [0, 1]
