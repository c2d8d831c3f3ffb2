from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policy_accel import Policy
from policy_accel.errors import UserError
from policy_accel.robot.control.chunks import Request
from policy_accel.robot.control.config import ControlConfig
from policy_accel.robot.control.process import PredictingProcess, order_of


def test_a_process_predicts_as_this_one_does(run_dir: Path) -> None:
    """Joined chunks too, since it remembers the plans; and its end is told."""
    order = order_of(Policy.load(run_dir, device="cpu").run, ControlConfig(10, joining="inpainting"), noise_seed=3)
    here, there = order.predictor(), PredictingProcess(order)
    window = [{"state": np.full(5, 200.0)}] * 2
    for number in range(2):
        request = Request(window, 8 * number, 2, seed=1, number=number)
        chunk = there(request)
        np.testing.assert_allclose(chunk.actions, here(request).actions, rtol=1e-5)
        assert (chunk.tick, chunk.predicted) == (8 * number, 15)
    broken = Request([{"state": np.full(5, np.nan)}] * 2, 16, 2, number=2)
    with pytest.raises(UserError, match="NaN or infinite action"):
        there(broken)
    there._process.kill()
    with pytest.raises(UserError, match="the process that predicts has ended"):
        there(request)
    there.close()
