from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from support.tensors import generator, normal
from torch import Tensor

from policy_accel.acceleration import noise_assignment
from policy_accel.acceleration.nearest_noise import nearest_noise
from policy_accel.acceleration.noise_assignment import (
    METRICS,
    Assignment,
    assign_noise,
    assignment_statistics,
    start_assignment,
)
from policy_accel.diffusion.host_work import HostWork


def cost_by_hand(data: Tensor, noise: Tensor, metric: str, mask: Tensor | None = None) -> np.ndarray:
    """The full cost in float64, from the definitions."""
    x, n = data.double().flatten(1).numpy(), noise.double().flatten(1).numpy()
    kept = np.ones_like(x) if mask is None else mask.expand(data.shape).flatten(1).numpy().astype(float)
    if metric == "dot":
        return -np.einsum("id,jd,id->ij", x, n, kept)
    square = np.einsum("ijd,id->ij", (x[:, None] - n[None]) ** 2, kept)
    return square if metric == "l2sq" else np.sqrt(square)


def total(cost: np.ndarray, permutation: Tensor) -> float:
    return float(cost[np.arange(len(cost)), permutation.numpy()].sum())


def smallest_total(cost: np.ndarray, labels: list[int]) -> float:
    """The best permutation that keeps every noise inside its group, by trying all."""
    rows = range(len(cost))
    permutations = (p for p in itertools.permutations(rows) if all(labels[i] == labels[p[i]] for i in rows))
    return min(sum(cost[i, p[i]] for i in rows) for p in permutations)


def assert_is_permutation(found: Assignment, pool: Tensor) -> None:
    assert found.permutation.dtype == torch.int64
    assert sorted(found.permutation.tolist()) == list(range(len(pool)))
    assert torch.equal(found.noise, pool[found.permutation])
    assert found.noise.dtype == pool.dtype
    assert isinstance(found.milliseconds, float)
    assert found.milliseconds >= 0


def along(data: Tensor, noise: Tensor) -> float:
    x, n = data.flatten(1), noise.flatten(1)
    return float(((x * n).sum(1) / x.norm(dim=1)).mean())


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


def test_seven_rows_by_brute_force() -> None:
    data, noise = normal(7, 3, seed=5), normal(7, 3, seed=6)
    for metric in METRICS:
        cost = cost_by_hand(data, noise, metric)
        assert total(cost, assign_noise(data, noise, metric=metric).permutation) == pytest.approx(
            smallest_total(cost, [0] * 7), rel=1e-5
        )


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


# Data N(0, I): relative drop of the mean distance in percent, x.n / D, shift along the sample in standard deviations.
PUBLISHED = {
    (64, 32): (20.6, 0.38, 2.1),
    (256, 32): (25.5, 0.45, 2.5),
    (1024, 32): (30.1, 0.51, 2.9),
    (64, 112): (10.2, 0.21, 2.2),
    (256, 112): (13.1, 0.25, 2.7),
    (64, 3072): (2.09, 0.039, 2.2),
    (256, 3072): (2.45, 0.048, 2.7),
}


@pytest.mark.parametrize(("batch", "dimension"), PUBLISHED)
def test_how_far_the_noise_moves(batch: int, dimension: int) -> None:
    drop, alignment, shift = PUBLISHED[batch, dimension]
    measured = []
    for seed in range(1 if batch == 1024 else 6):
        data, noise = normal(batch, dimension, seed=seed), normal(batch, dimension, seed=1000 + seed)
        found = assign_noise(data, noise, metric="l2")
        stats = found.statistics
        assert float(stats.noise_square) == pytest.approx(float(noise.square().mean()), rel=1e-6)
        assert float(stats.rows_moved) > 0.9
        fall = 100 * (1 - float(stats.distance_after) / float(stats.distance_before))
        measured.append((fall, float(stats.alignment), along(data, found.noise)))
    values = np.array(measured)
    # The table is one seed; its scatter, from ours over seeds, and the printed digits.
    scatter = values.std(0, ddof=1) if len(values) > 1 else np.array([0.4, 0.005, 0.02])
    digits = np.array([0.05, 0.005, 0.05]) if dimension < 3072 else np.array([0.005, 0.0005, 0.05])
    assert (np.abs(values.mean(0) - (drop, alignment, shift)) < 2.5 * scatter + digits).all(), values.mean(0)
    assert values.mean(0) == pytest.approx((drop, alignment, shift), rel=0.12)


@pytest.mark.parametrize(("block", "drop"), [(256, 25.6), (128, 23.3), (64, 20.6)])
def test_blocks_of_a_large_batch(block: int, drop: float) -> None:
    data, noise = normal(1024, 32), normal(1024, 32, seed=1)
    found = assign_noise(data, noise, block_size=block)
    assert_is_permutation(found, noise)
    stats = assignment_statistics(data, noise, found.noise, found.permutation)
    assert 100 * (1 - float(stats.distance_after) / float(stats.distance_before)) == pytest.approx(drop, abs=0.6)


@pytest.mark.parametrize(
    ("actions", "length", "shifts", "drop"),
    [(2, 4.0, (2.08, 0.80, 0.57), 20), (2, 8.0, (1.83, 0.79, 0.56), 17), (7, 4.0, (2.48, 0.83, 0.57), 12)],
)
def test_smooth_action_chunks(actions: int, length: float, shifts: tuple[float, ...], drop: float) -> None:
    steps = torch.arange(16.0, dtype=torch.float64)
    kernel = torch.exp(-((steps[:, None] - steps) ** 2) / (2 * length**2)) + 1e-6 * torch.eye(16)
    root = torch.linalg.cholesky(kernel).float()
    measured = []
    for seed in range(6):
        data = torch.einsum("hk,bka->bha", root, normal(256, 16, actions, seed=seed))
        noise = normal(256, 16, actions, seed=100 + seed)
        found = assign_noise(data, noise, metric="l2")
        four = nearest_noise(data, candidates=4, metric="l2", generator=generator(200 + seed)).noise
        two = nearest_noise(data, candidates=2, metric="dot", generator=generator(300 + seed)).noise
        stats = assignment_statistics(data, noise, found.noise, found.permutation)
        fall = 100 * (1 - float(stats.distance_after) / float(stats.distance_before))
        measured.append((along(data, found.noise), along(data, four), along(data, two), fall))
    values = np.mean(measured, axis=0)
    assert values[:3] == pytest.approx(shifts, abs=0.1)
    assert values[3] == pytest.approx(drop, abs=1.0)


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


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", [(48, 16, 2), (24, 3, 8, 8)])
def test_any_shape_gives_what_flat_rows_give(metric: str, shape: tuple[int, ...]) -> None:
    data, noise = normal(*shape), normal(*shape, seed=1)
    mask = torch.rand(shape, generator=generator(2)) < 0.8
    shaped = assign_noise(data, noise, metric=metric, mask=mask, block_size=10, standardize=True)
    flat = assign_noise(
        data.flatten(1), noise.flatten(1), metric=metric, mask=mask.flatten(1), block_size=10, standardize=True
    )
    assert torch.equal(shaped.permutation, flat.permutation)
    assert torch.equal(shaped.noise.flatten(1), flat.noise)
    assert_is_permutation(shaped, noise)
    strided = assign_noise(data.transpose(1, -1), noise.transpose(1, -1), metric=metric)
    assert torch.equal(strided.permutation, assign_noise(data, noise, metric=metric).permutation)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_pool_is_only_reordered(dtype: torch.dtype) -> None:
    data, noise = normal(50, 6), normal(50, 6, seed=1).to(dtype)
    original_data, original_noise = data.clone(), noise.clone()
    found = assign_noise(data, noise, block_size=16, groups=torch.arange(50) % 3)
    assert_is_permutation(found, noise)
    assert torch.equal(data, original_data)
    assert torch.equal(noise, original_noise)
    assert torch.equal(found.noise.unique(dim=0), noise.unique(dim=0))
    assert not torch.equal(found.noise, noise)


@pytest.mark.parametrize("metric", METRICS)
def test_one_row_keeps_its_noise(metric: str) -> None:
    noise = normal(1, 4, seed=1)
    for standardize in (False, True):
        found = assign_noise(normal(1, 4), noise, metric=metric, standardize=standardize)
        assert torch.equal(found.noise, noise)
        assert found.permutation.tolist() == [0]


@pytest.mark.parametrize("metric", METRICS)
def test_blocks_are_batches_of_their_own(metric: str) -> None:
    data, noise = normal(50, 6), normal(50, 6, seed=1)
    found = assign_noise(data, noise, metric=metric, block_size=16).permutation
    alone = [
        start + assign_noise(data[start : start + 16], noise[start : start + 16], metric=metric).permutation
        for start in range(0, 50, 16)
    ]
    assert [len(block) for block in alone] == [16, 16, 16, 2]
    assert torch.equal(found, torch.cat(alone))
    assert assign_noise(data, noise, metric=metric, block_size=1).permutation.tolist() == list(range(50))
    whole = assign_noise(data, noise, metric=metric).permutation
    assert torch.equal(assign_noise(data, noise, metric=metric, block_size=64).permutation, whole)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("block_size", [None, 4])
def test_groups_are_batches_of_their_own(metric: str, block_size: int | None) -> None:
    data, noise = normal(60, 6), normal(60, 6, seed=1)
    labels = torch.randint(-2, 5, (60,), generator=generator(2)) ** 3
    found = assign_noise(data, noise, metric=metric, groups=labels, block_size=block_size)
    assert_is_permutation(found, noise)
    assert torch.equal(labels[found.permutation], labels)
    for label in labels.unique():
        rows = torch.nonzero(labels == label).squeeze(1)
        alone = assign_noise(data[rows], noise[rows], metric=metric, block_size=block_size).permutation
        assert torch.equal(found.permutation[rows], rows[alone])


def test_every_sample_its_own_group_changes_nothing() -> None:
    noise = normal(20, 4, seed=1)
    assert torch.equal(assign_noise(normal(20, 4), noise, groups=torch.randperm(20)).noise, noise)


def test_no_cost_is_built_that_no_block_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, ...]] = []

    send = HostWork.send

    def note_the_sizes(work: HostWork, costs: Sequence[Tensor]) -> None:
        sizes.extend(tuple(cost.shape) for cost in costs)
        send(work, costs)

    monkeypatch.setattr(HostWork, "send", note_the_sizes)
    data, noise = normal(100, 4), normal(100, 4, seed=1)
    assign_noise(data, noise, block_size=16)
    assert sizes == [(6, 16, 16), (1, 4, 4)]
    sizes.clear()
    assign_noise(data, noise, groups=torch.arange(100) % 10)
    assert sizes == [(10, 10, 10)]


class Later(Executor):
    """Keeps what it is given; runs it when the result is asked for."""

    def submit(self, solve: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def result(timeout: float | None = None) -> Any:
            return solve(*args, **kwargs)

        future.result = result  # type: ignore[method-assign]
        return future


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("block_size", [None, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_labels_on_the_device_are_read_when_the_cost_has_arrived(
    metric: str, block_size: int | None, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, noise = normal(60, 3, 2, dtype=torch.float64), normal(60, 3, 2, seed=1, dtype=torch.float64)
    labels = torch.randint(-2, 5, (60,), generator=generator(2)) ** 3
    options: dict[str, Any] = {"metric": metric, "block_size": block_size, "standardize": masked}
    if masked:
        options["mask"] = torch.rand(60, 3, 2, generator=generator(3)) < 0.7
    expected = assign_noise(data, noise, groups=labels, **options)

    module = "policy_accel.acceleration.noise_assignment"
    find, send = noise_assignment._problems, HostWork.send
    grouped: list[int] = []
    copied: list[tuple[int, ...]] = []

    def note_the_groups(batch: int, size: int | None, groups: Tensor | None) -> list[np.ndarray]:
        grouped.extend([] if groups is None else [len(groups)])
        return find(batch, size, groups)

    def note_the_copies(work: HostWork, tensors: Sequence[Tensor]) -> None:
        copied.extend(tuple(values.shape) for values in tensors)
        send(work, tensors)

    monkeypatch.setattr(f"{module}._arrives_later", lambda labels: True)
    monkeypatch.setattr(f"{module}._problems", note_the_groups)
    monkeypatch.setattr(HostWork, "send", note_the_copies)
    pending = start_assignment(data, noise, groups=labels, executor=Later(), **options)
    assert grouped == []
    assert sorted(copied) == [(1, 60, 60), (60,)]
    found = pending.result()
    assert grouped == [60]
    assert_is_permutation(found, noise)
    assert torch.equal(found.permutation, expected.permutation)
    assert torch.equal(found.noise, expected.noise)
    assert not torch.equal(found.permutation, assign_noise(data, noise, **options).permutation)


def test_only_the_costs_inside_the_groups_must_be_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of large samples and the noises of the other group are not."""
    data, noise, labels = normal(6, 3).double(), normal(6, 3, seed=1).double(), torch.tensor([0, 1, 0, 1, 0, 1])
    data[labels == 0] *= 1e200
    noise[labels == 1] *= 1e200
    expected = assign_noise(data, noise, groups=labels).permutation
    monkeypatch.setattr("policy_accel.acceleration.noise_assignment._arrives_later", lambda labels: True)
    assert torch.equal(assign_noise(data, noise, groups=labels).permutation, expected)
    noise[4, 1] = math.nan
    with pytest.raises(ValueError, match=r"^data or noise: the cost of sample 0 and noise row 4 "):
        assign_noise(data, noise, groups=labels)


def test_masked_entries_may_hold_anything_and_move_along() -> None:
    data, noise = normal(40, 10), normal(40, 10, seed=1)
    mask = torch.arange(10) < 7
    for metric in METRICS:
        for standardize in (False, True):
            counted = assign_noise(data[:, :7], noise[:, :7], metric=metric, standardize=standardize)
            dirty = data.masked_fill(~mask, math.nan)
            found = assign_noise(dirty, noise, metric=metric, standardize=standardize, mask=mask)
            assert torch.equal(found.permutation, counted.permutation)
            assert_is_permutation(found, noise)


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


def test_the_cost_may_be_adjusted_where_it_is_solved() -> None:
    data, noise = normal(32, 4).requires_grad_(), normal(32, 4, seed=1)
    extra = normal(32, 32, seed=2)
    seen: list[tuple[int, Tensor]] = []

    def add(cost: Tensor) -> Tensor:
        assert not cost.requires_grad
        seen.append((threading.get_ident(), cost.clone()))
        return cost + extra

    direct = assign_noise(data, noise, metric="l2sq", adjust_cost=lambda cost: cost + extra)
    with ThreadPoolExecutor(1) as executor:
        found = start_assignment(data, noise, metric="l2sq", adjust_cost=add, executor=executor).result()
    assert torch.equal(found.permutation, direct.permutation)
    assert seen[0][0] != threading.get_ident()
    np.testing.assert_allclose(seen[0][1].numpy(), cost_by_hand(data.detach(), noise, "l2sq"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metric": "l2", "standardize": True},
        {"metric": "l2sq", "block_size": 24},
        {"groups": torch.arange(100) % 7, "mask": torch.arange(6) < 4},
    ],
)
def test_a_thread_gives_what_the_direct_call_gives(options: dict[str, object]) -> None:
    batches = [(normal(100, 6, seed=s), normal(100, 6, seed=50 + s)) for s in range(6)]
    with ThreadPoolExecutor(2) as executor:
        pending = [start_assignment(x, n, executor=executor, **options) for x, n in batches]  # type: ignore[arg-type]
        found = [p.result() for p in pending]
    for (x, n), ours in zip(batches, found, strict=True):
        direct = assign_noise(x, n, **options)  # type: ignore[arg-type]
        assert torch.equal(ours.permutation, direct.permutation)
        assert torch.equal(ours.noise, direct.noise)


def test_the_caller_goes_on_while_the_thread_solves() -> None:
    solving, gate = threading.Event(), threading.Event()

    def wait(cost: Tensor) -> Tensor:
        solving.set()
        assert gate.wait(timeout=10)
        return cost

    data, noise = normal(16, 4), normal(16, 4, seed=1)
    with ThreadPoolExecutor(1) as executor:
        pending = start_assignment(data, noise, metric="l2sq", adjust_cost=wait, executor=executor)
        expected = assign_noise(data, noise, metric="l2sq").permutation
        data.zero_()  # the cost was taken when the assignment was started
        assert solving.wait(timeout=10)
        threading.Timer(0.03, gate.set).start()
        found = pending.result()
    assert torch.equal(found.permutation, expected)
    assert 25 < found.milliseconds < 10_000


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


@pytest.mark.parametrize("where", ["data", "noise", "extra cost"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_named(where: str, value: float) -> None:
    data, noise, extra = normal(6, 3), normal(6, 3, seed=1), torch.zeros(6, 6)
    {"data": data, "noise": noise, "extra cost": extra}[where][4, 2] = value
    with pytest.raises(ValueError, match=r"cost of sample \d and noise row \d is not finite"):
        assign_noise(data, noise, metric="l2sq", adjust_cost=lambda cost: cost + extra)
    with ThreadPoolExecutor(1) as executor:
        pending = start_assignment(data, noise, metric="l2sq", adjust_cost=lambda cost: cost + extra, executor=executor)
        with pytest.raises(ValueError, match="is not finite"):
            pending.result()


DATA = torch.zeros(4, 6)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: assign_noise(DATA, torch.zeros(4, 5)), r"^data: \[4, 6\] and noise \[4, 5\]"),
        (lambda: assign_noise(DATA[:0], DATA[:0]), "^data: .*B at least 1"),
        (lambda: assign_noise(DATA, DATA, metric="l3"), "^metric 'l3' is unknown; did you mean 'l2'"),
        (lambda: assign_noise(DATA, DATA, block_size=0), "^block_size=0"),
        (lambda: assign_noise(DATA, DATA, block_size=2.5), r"^block_size=2\.5"),  # type: ignore[arg-type]
        (lambda: assign_noise(DATA, DATA, groups=torch.zeros(3)), r"^groups: the shape is \[3\].*4 samples"),
        (lambda: assign_noise(DATA, DATA, mask=torch.ones(6)), r"^mask: torch\.float32"),
        (lambda: assign_noise(DATA, DATA, mask=torch.ones(5, dtype=torch.bool)), r"^mask: torch\.bool of shape \[5\]"),
        (lambda: assign_noise(DATA, DATA, metric="l2", adjust_cost=torch.exp), "^metric=l2 .*give l2sq"),
        (
            lambda: assign_noise(DATA, DATA, metric="l2sq", adjust_cost=torch.exp, block_size=2),
            "^adjust_cost: ",
        ),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
