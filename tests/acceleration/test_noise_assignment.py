"""What an assignment does with a batch: its rows, blocks, groups and masked entries; and the input that is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support.assignments import assert_is_permutation
from support.tensors import generator, normal
from torch import Tensor

from policy_accel.acceleration.noise_assignment import METRICS, assign_noise, start_assignment
from policy_accel.diffusion.host_work import HostWork


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
