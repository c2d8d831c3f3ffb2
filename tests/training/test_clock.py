"""Seconds of updates, on a clock that the test moves."""

from __future__ import annotations

import time

import pytest
import torch
from support.simulated_cuda import CUDA, SimulatedCuda

from policy_accel.training.clock import TrainingClock


@pytest.mark.parametrize(("device", "aside"), [(torch.device("cpu"), 7.0), (CUDA, 0.002)])
def test_a_lap_leaves_out_what_was_done_aside(
    device: torch.device, aside: float, monkeypatch: pytest.MonkeyPatch, cuda: SimulatedCuda
) -> None:
    """On CUDA what the device took counts: one millisecond for each pair of simulated events."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = TrainingClock(device)
    for seconds in (3.0, 4.0):
        now[0] += 10.0
        with clock.aside():
            now[0] += seconds
    assert clock.lap() == pytest.approx(27.0 - aside)
    now[0] += 2.0
    assert clock.lap() == pytest.approx(2.0)
    now[0] += 5.0
    clock.restart()
    now[0] += 1.0
    assert clock.lap() == pytest.approx(1.0)
