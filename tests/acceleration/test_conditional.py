from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2
from support.tensors import generator
from torch import Tensor

from policy_accel.acceleration.conditional import (
    LARGEST_WEIGHT,
    ConditionWeight,
    condition_distance,
    grouped_permutation,
    kmeans_groups,
    ridge_mean,
)
from policy_accel.acceleration.noise_assignment import assign_noise, start_assignment


def inertia(points: Tensor, labels: Tensor) -> float:
    """Sum of squared distances to the group means, by brute force."""
    return sum(
        float((points[labels == label] - points[labels == label].mean(0)).square().sum()) for label in labels.unique()
    )


def test_kmeans_finds_separated_clusters_whatever_the_units() -> None:
    truth = torch.arange(600) % 6
    corners = torch.tensor([[0, 0], [0, 9], [9, 0], [9, 9], [4, 20], [20, 4]], dtype=torch.float64)
    points = corners[truth] + 0.3 * torch.randn(600, 2, generator=generator(), dtype=torch.float64)
    scaled = torch.cat([points * torch.tensor([1e-3, 1e4]) + 50.0, torch.full((600, 2), 7.0)], dim=1)
    labels = kmeans_groups(scaled.view(600, 2, 2), 6, seed=1)
    assert labels.dtype == torch.int64
    assert len(labels.unique()) == 6
    assert len((labels * 6 + truth).unique()) == 6  # one label for each true cluster


def test_kmeans_is_a_fixed_point_no_worse_than_scipy_and_deterministic() -> None:
    points = torch.randn(2000, 5, generator=generator(), dtype=torch.float64)
    standard = (points - points.mean(0)) / points.std(0, correction=0)
    labels = kmeans_groups(points, 12, seed=3)
    theirs = kmeans2(standard.numpy(), 12, iter=50, minit="++", rng=np.random.default_rng(0))[1]
    assert inertia(standard, labels) < 1.02 * inertia(standard, torch.from_numpy(theirs).long())
    means = torch.stack([standard[labels == label].mean(0) for label in range(12)])
    nearest = torch.cdist(standard, means).argmin(1)
    assert (nearest != labels).float().mean() < 0.01  # 50 rounds may stop just before the end
    assert torch.equal(labels, kmeans_groups(points, 12, seed=3))
    assert not torch.equal(labels, kmeans_groups(points, 12, seed=4))


def test_kmeans_at_the_ends() -> None:
    points = torch.randn(40, 3, generator=generator())
    assert kmeans_groups(points, 40, 0).unique().tolist() == list(range(40))
    assert kmeans_groups(points, 1, 0).unique().tolist() == [0]
    assert len(kmeans_groups(points[:4].repeat(10, 1), 8, 0).unique()) == 4  # four distinct conditions only
    assert kmeans_groups(torch.ones(5, 2), 3, 0).unique().numel() == 1


@pytest.mark.parametrize("count", [0, 41])
def test_kmeans_refuses_a_count_outside_the_samples(count: int) -> None:
    with pytest.raises(ValueError, match=f"^count={count} must lie between 1 and 40"):
        kmeans_groups(torch.randn(40, 3), count, 0)


def test_kmeans_names_the_row_that_is_not_finite() -> None:
    points = torch.randn(9, 3)
    points[4, 1] = torch.nan
    with pytest.raises(ValueError, match=r"^conditions: row 4"):
        kmeans_groups(points, 2, 0)


def runs_of(values: Tensor) -> list[tuple[int, int]]:
    """(label, length) of each stretch of equal labels."""
    found: list[tuple[int, int]] = []
    for label in values.tolist():
        if found and found[-1][0] == label:
            found[-1] = (label, found[-1][1] + 1)
        else:
            found.append((label, 1))
    return found


def test_grouped_permutation_holds_every_sample_once_in_whole_runs() -> None:
    sizes = {7: 64, 2: 37, 5: 8, 9: 3}
    groups = torch.cat([torch.full((size,), label) for label, size in sizes.items()])
    groups = groups[torch.randperm(len(groups), generator=generator(5))]
    order = grouped_permutation(groups, 8, generator())
    assert order.dtype == torch.int64
    assert order.sort().values.tolist() == list(range(112))
    # Stretches are whole numbers of runs, save that each group has one short run with the rest of its samples.
    for label, size in sizes.items():
        rests = [length % 8 for found, length in runs_of(groups[order]) if found == label and length % 8]
        assert rests == ([size % 8] if size % 8 else [])


def test_grouped_permutation_shuffles_inside_groups_and_runs_among_each_other() -> None:
    groups = torch.arange(4).repeat_interleave(64)
    draws = generator()
    first, second = grouped_permutation(groups, 16, draws), grouped_permutation(groups, 16, draws)
    assert not torch.equal(first, second)
    assert torch.equal(first, grouped_permutation(groups, 16, generator()))
    together = {frozenset(run.tolist()) for run in first.split(16)} & {
        frozenset(run.tolist()) for run in second.split(16)
    }
    assert not together
    # Every sample is equally likely to stand in the first place.
    place = torch.stack([grouped_permutation(groups, 16, draws)[0] for _ in range(4096)]).bincount(minlength=256)
    assert float((place - 16.0).square().sum() / 16.0) == pytest.approx(255, abs=4 * (2 * 255) ** 0.5)  # chi-square
    assert len(runs_of(groups[grouped_permutation(groups, 1, draws)])) > 150  # runs of one: a plain permutation


def test_grouped_permutation_refuses_no_run() -> None:
    with pytest.raises(ValueError, match=r"^run_length=0"):
        grouped_permutation(torch.zeros(3), 0, generator())
    with pytest.raises(ValueError, match=r"^groups: .*\[3, 1\]"):
        grouped_permutation(torch.zeros(3, 1), 2, generator())


def test_condition_distance_against_loops() -> None:
    vectors = 5.0 + torch.randn(7, 2, 3, generator=generator())
    square = condition_distance(vectors)
    flat = vectors.flatten(1).double().numpy()
    for i in range(7):
        for j in range(7):
            assert float(square[i, j]) == pytest.approx(((flat[i] - flat[j]) ** 2).sum(), rel=1e-5)
    assert square.diagonal().tolist() == [0.0] * 7
    # Equal conditions are exactly 0 apart, also in large batches and far from the origin.
    repeated = (1e3 + torch.randn(1, 40, generator=generator())).repeat(64, 1)
    assert float(condition_distance(repeated).abs().max()) == 0.0
    assert condition_distance(torch.tensor([3, 1, 3])).tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


def share(cost: Tensor, own: Tensor) -> float:
    return float((cost <= own.unsqueeze(1)).double().mean())


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.2])
def test_weight_reaches_the_ratio(ratio: float) -> None:
    draws = generator()
    data, noise = torch.randn(256, 16, generator=draws), torch.randn(256, 16, generator=draws)
    cost, conditions = torch.cdist(data, noise).square(), torch.randn(256, 3, generator=draws)
    distance, weight = condition_distance(conditions), ConditionWeight(ratio)
    own = cost.diagonal().double()
    found, adjusted = weight.find(cost, distance), weight.add_to(cost, distance)
    assert share(adjusted, own) == pytest.approx(ratio, abs=2 / 256**2)
    assert torch.equal(adjusted, cost.double() + found * distance.double())
    # An independent search: bisection on the monotone share.
    low, high = 0.0, 1e4
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if share(cost + middle * distance.double(), own) > ratio else (low, middle)
    assert found == pytest.approx(low, rel=1e-2)


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.4])
def test_weight_is_the_largest_that_leaves_the_ratio(ratio: float) -> None:
    """A hair less weight leaves the share of pairs that cost no more than the own one; a hair more, one pair fewer."""
    draws = generator()
    cost, distance = torch.rand(2, 20, 20, generator=draws, dtype=torch.float64)
    cost.diagonal().add_(0.8)
    distance.fill_diagonal_(0.0)
    weight = ConditionWeight(ratio).find(cost, distance)
    assert weight > 0

    def cheap(factor: float) -> int:
        return int((cost + factor * weight * distance <= cost.diagonal().unsqueeze(1)).sum())

    assert (cheap(1 - 1e-9), cheap(1 + 1e-9)) == (int(ratio * 400), int(ratio * 400) - 1)


def test_weight_is_zero_where_few_pairs_are_cheap_anyway() -> None:
    cost = torch.full((50, 50), 9.0).fill_diagonal_(1.0)
    assert ConditionWeight(0.5).find(cost, torch.rand(50, 50)) == 0.0


def test_weight_refuses_ratios_that_leave_nothing_to_exchange() -> None:
    with pytest.raises(ValueError, match=r"^condition_ratio=1\.5"):
        ConditionWeight(1.5)
    with pytest.raises(ValueError, match=r"^condition_ratio=0\.01 leaves all noise in its place in a batch of 64"):
        ConditionWeight(0.01).find(torch.rand(64, 64), torch.rand(64, 64))


def test_discrete_conditions_give_the_assignment_inside_classes() -> None:
    draws = generator()
    data, noise = torch.randn(240, 6, generator=draws), torch.randn(240, 6, generator=draws)
    labels = torch.randint(5, (240,), generator=draws)
    data = data + 3.0 * labels.unsqueeze(1)  # labels that pull the free assignment apart
    weight = ConditionWeight(0.01)
    coupled = assign_noise(
        data, noise, metric="l2sq", adjust_cost=weight.add_to, adjust_with=[condition_distance(labels)]
    )
    grouped = assign_noise(data, noise, metric="l2sq", groups=labels)
    assert weight.find(torch.cdist(data, noise).square(), condition_distance(labels)) == LARGEST_WEIGHT
    assert torch.equal(coupled.permutation, grouped.permutation)
    assert not torch.equal(assign_noise(data, noise, metric="l2sq").permutation, grouped.permutation)


def test_continuous_conditions_keep_exchanges_near() -> None:
    draws = generator()
    conditions = torch.randn(256, 2, generator=draws)
    data = conditions.repeat(1, 4) + 0.3 * torch.randn(256, 8, generator=draws)
    noise = torch.randn(256, 8, generator=draws)
    with ThreadPoolExecutor(1) as executor:
        pending = start_assignment(
            data,
            noise,
            metric="l2sq",
            adjust_cost=ConditionWeight(0.05).add_to,
            adjust_with=[condition_distance(conditions)],
            executor=executor,
        )
        near = pending.result().permutation
    free = assign_noise(data, noise, metric="l2sq").permutation
    moved_near, moved_free = ((conditions - conditions[order]).norm(dim=1).mean() for order in (near, free))
    assert moved_near < 0.5 * moved_free
    assert (near != torch.arange(256)).float().mean() > 0.5
    assert (data - noise[near]).square().sum() < (data - noise).square().sum()


def test_ridge_against_least_squares_on_augmented_rows() -> None:
    draws = generator()
    conditions = torch.randn(500, 2, 3, generator=draws) * torch.tensor([1.0, 1e-2, 50.0]) + 100.0
    conditions[:, 0, 1] = 4.0  # never changes
    flat = conditions.flatten(1).double()
    data = (flat[:, [2]] + torch.randn(500, 8, generator=draws)).view(500, 4, 2).float()
    penalty = 0.3
    mean = ridge_mean(conditions, data, penalty)

    kept = [0, 2, 3, 4, 5]
    standard = ((flat - flat.mean(0)) / flat.std(0, correction=0))[:, kept].numpy()
    x = data.flatten(1).double()
    centred = (x - x.mean(0)).numpy()
    rows = np.concatenate([standard, np.sqrt(500 * penalty) * np.eye(5)])
    weights = np.linalg.lstsq(rows, np.concatenate([centred, np.zeros((5, 8))]), rcond=None)[0]
    expected = torch.from_numpy(standard @ weights) + x.mean(0)
    predicted = mean.predict(conditions)
    assert predicted.dtype == torch.float32
    torch.testing.assert_close(predicted.double(), expected.view(500, 4, 2), rtol=1e-5, atol=2e-3)
    assert torch.equal(mean.to("cpu").predict(conditions), predicted)  # other rows are other sums on some processors


def test_ridge_explains_what_is_linear_and_nothing_of_noise() -> None:
    draws = generator()
    conditions = torch.randn(2000, 5, generator=draws)
    linear = (conditions @ torch.randn(5, 6, generator=draws)).view(2000, 3, 2)
    noise = torch.randn(2000, 3, 2, generator=draws)
    left = [data - ridge_mean(conditions, data, 1e-6).predict(conditions) for data in (linear, noise)]
    assert float(left[0].square().sum() / linear.square().sum()) < 1e-6
    assert float(left[1].square().sum() / noise.square().sum()) > 0.99


def test_ridge_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"^penalty=0\.0"):
        ridge_mean(torch.randn(5, 2), torch.randn(5, 2), 0.0)
    with pytest.raises(ValueError, match=r"^conditions: there are 4 for 5 samples"):
        ridge_mean(torch.randn(4, 2), torch.randn(5, 2))
    with pytest.raises(ValueError, match=r"^data: row 3"):
        ridge_mean(torch.randn(5, 2), torch.randn(5, 2).index_fill(0, torch.tensor([3]), torch.inf))
