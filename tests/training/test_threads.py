"""How many CPU threads a run takes, and that it goes on with as many."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from policy_accel.training import Trained, TrainingConfig
from policy_accel.training.threads import PASSES, fastest

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
    assert ", with 3 CPU threads" in capsys.readouterr().err
    torch.set_num_threads(1)
    config.steps, config.threads = 6, then
    run(toy_task(), config, run_config={"training": {"steps": 3}})
    assert recorded(tmp_path / "run") == number
    assert f", with {number} CPU threads" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "policy"), [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_spin_briefly_unless_the_environment_says_otherwise(given: dict[str, str], policy: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"} | given
    code = "import os, sys, policy_accel; assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == policy


def slow_with(threads: int) -> Callable[[], None]:
    def work() -> None:
        time.sleep(0.02 if torch.get_num_threads() == threads else 0.0)

    return work


@pytest.mark.parametrize(("slow", "chosen"), [(1, 3), (3, 1)])
def test_the_faster_number_is_taken(slow: int, chosen: int) -> None:
    assert fastest(slow_with(slow), (1, 3)) == chosen


@pytest.mark.parametrize(("ratio", "turns"), [(1.1, PASSES), (2.0, 1)])
def test_the_first_turn_does_not_count_and_what_is_clear_is_not_measured_again(
    ratio: float, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    clock = [0.0]
    monkeypatch.setattr("policy_accel.training.threads.time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def work() -> None:
        calls.append(torch.get_num_threads())
        clock[0] += {1: 5.0, 2: 0.1}.get(len(calls), 1.0 if calls[-1] == 1 else ratio)

    assert fastest(work, (1, 2)) == 1
    assert calls == [1, 2] * (1 + turns)


@pytest.mark.parametrize("chosen", [1, 3])
def test_a_long_run_begins_with_a_measurement_that_changes_nothing(
    toy_task: Any,
    config: TrainingConfig,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chosen: int,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("policy_accel.training.threads.WORTH_IT", config.steps)
    measured: list[tuple[int, ...]] = []

    def fastest(work: Callable[[], None], choices: tuple[int, ...]) -> int:
        work()
        measured.append(choices)
        return chosen

    monkeypatch.setattr("policy_accel.training.threads.fastest", fastest)
    torch.set_num_threads(3)
    run(toy_task(), config, "measured")
    assert measured == [(1, 3)]
    assert recorded(tmp_path / "measured") == chosen
    config.threads = chosen
    run(toy_task(), config, "told")
    assert len(measured) == 1
    states = [
        (tmp_path / name / "checkpoints" / "last" / "model.safetensors").read_bytes() for name in ("measured", "told")
    ]
    assert states[0] == states[1]


@pytest.mark.parametrize("why", ["OMP_NUM_THREADS", "one thread", "short"])
def test_nothing_is_measured_where_there_is_no_choice(
    toy_task: Any, config: TrainingConfig, run: Run, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr("policy_accel.training.threads.WORTH_IT", config.steps + (why == "short"))
    monkeypatch.setattr("policy_accel.training.threads.fastest", lambda *_: pytest.fail("measured"))
    if why != "OMP_NUM_THREADS":
        monkeypatch.delenv("OMP_NUM_THREADS")
    torch.set_num_threads(1 if why == "one thread" else 3)
    run(toy_task(), config)
