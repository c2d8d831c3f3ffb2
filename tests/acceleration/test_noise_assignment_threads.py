"""An assignment that is solved while the caller goes on."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from support.assignments import assert_is_permutation, cost_by_hand
from support.tensors import generator, normal
from torch import Tensor

from policy_accel.acceleration import noise_assignment
from policy_accel.acceleration.noise_assignment import METRICS, assign_noise, start_assignment
from policy_accel.diffusion.host_work import HostWork


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
