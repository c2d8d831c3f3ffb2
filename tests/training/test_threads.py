"""How many CPU threads a run takes, and that it goes on with as many."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from policy_accel.training import Trained, TrainingConfig

Run = Callable[..., Trained]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def recorded(run_dir: Path) -> int:
    return int(json.loads((run_dir / "checkpoints" / "last" / "state.json").read_text())["threads"])


@pytest.mark.parametrize(("first", "then", "number"), [(0, 0, 3), (0, 2, 2), (3, 0, 3)])
def test_a_resumed_run_takes_the_threads_that_it_had_unless_told_otherwise(
    first: int,
    then: int,
    number: int,
    toy_task: Any,
    config: TrainingConfig,
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config.steps, config.threads = 3, first
    torch.set_num_threads(3)
    run(toy_task(), config)
    assert recorded(tmp_path / "run") == 3
    assert "train: on cpu, with 3 CPU threads" in capsys.readouterr().err
    torch.set_num_threads(1)
    config.steps, config.threads = 6, then
    run(toy_task(), config, run_config={"training": {"steps": 3}})
    assert recorded(tmp_path / "run") == number
    assert f"train: on cpu, with {number} CPU threads" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "policy"), [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_spin_briefly_unless_the_environment_says_otherwise(given: dict[str, str], policy: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"} | given
    code = "import os, sys, policy_accel; assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == policy
