from __future__ import annotations

import pytest
import torch
from support.simulated_cuda import CUDA, SimulatedCuda

from policy_accel.training.step_numbers import SLOTS, StepNumbers


def test_numbers_are_read_by_what_is_queued_after_them_and_nothing_waits() -> None:
    with SimulatedCuda() as cuda:
        numbers = StepNumbers(2, CUDA)
        first, second = numbers[0], numbers[1]
        seen = []
        with cuda.phase("written"):
            for step in range(3 * SLOTS):
                numbers.write(step / 7, -float(step))
                seen.append(first + second)
        assert not cuda.waits["written"]
        torch.cuda.synchronize()
        assert not cuda.hazards
        assert [float(x.cpu()) for x in seen] == [step / 7 - step for step in range(3 * SLOTS)], "in float64"


def test_the_host_is_at_most_so_many_updates_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is written again only when its copy is done: with a device that does nothing, the ring runs full."""
    with SimulatedCuda() as cuda:
        monkeypatch.setattr(torch.cuda.Event, "query", lambda event: False)
        numbers = StepNumbers(1, CUDA)
        with cuda.phase("ahead"):
            for step in range(SLOTS):
                numbers.write(float(step))
        assert not cuda.waits["ahead"]
        with cuda.phase("full"):
            numbers.write(1.0)
        assert sum(cuda.waits["full"].values()) == 1
