"""What every run says before its first update: on what, how large, how long, and from where it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from policy_accel.machine import processor
from policy_accel.training import Trained, TrainingConfig

Run = Callable[..., Trained]


def test_a_run_says_on_what_and_how_long_it_trains_and_where_it_goes_on(
    toy_task: Any, config: TrainingConfig, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def task() -> Any:
        made = toy_task()
        made.heading = {"data": "forty numbers", "left out": ""}
        made.model.layers[0].bias.requires_grad_(False)
        return made

    config.steps, config.batch_size = 3, 8
    run(task(), config)
    weights = 4 * 16 + 16 + 2 * 16 + 16 * 3 + 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"train: on cpu ({processor()}), with {torch.get_num_threads()} CPU threads, in fp32")
    assert lines[1:4] == [
        "  data     forty numbers",
        f"  network  {weights} parameters, 16 of them frozen",
        "  updates  3 of 8 samples each, 0.6 times through the 40",
    ]
    config.steps = 5
    run(task(), config, run_config={"training": {"steps": 3}})
    assert "5 of 8 samples each, 1 times through the 40; going on from step 3" in capsys.readouterr().err
