from __future__ import annotations

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
