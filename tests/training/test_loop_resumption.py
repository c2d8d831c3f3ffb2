"""A run that was stopped, killed or spoilt: what is saved of it, and that it goes on bit for bit."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import killed_at, signalled_at, weights
from support.tensors import same

from policy_accel.errors import UserError
from policy_accel.models import Denoiser
from policy_accel.run_files import checkpoint_steps, read_metrics
from policy_accel.training import Trained, TrainingConfig
from policy_accel.training.checkpoint import evaluation_of, load_checkpoint

Run = Callable[..., Trained]


@pytest.mark.parametrize("stop", [1, 3, 4, 7, 11])
def test_a_stopped_run_continues_bit_for_bit(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path, stop: int
) -> None:
    run(toy_task(), config, "whole")
    with killed_at(stop) as crash:
        run(toy_task(), config, "parts", after_update=crash)
    torch.rand(100)
    run(toy_task(), config, "parts")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    whole, parts = (
        [
            (row["step"], row.get("loss"), row.get("validation_loss"))
            for row in read_metrics(tmp_path / name / "metrics.jsonl")
        ]
        for name in ("whole", "parts")
    )
    assert [row for row in parts if row[2] is not None] == [row for row in whole if row[2] is not None]
    assert [row[0] for row in parts] == sorted(row[0] for row in parts)


def test_a_checkpoint_from_before_tasks_drew_anything_continues(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    run(toy_task(), config, "whole")
    with killed_at(7) as crash:
        run(toy_task(), config, "parts", after_update=crash)
    for record in (tmp_path / "parts" / "checkpoints").glob("0*/state.json"):
        state = json.loads(record.read_text())
        del state["generators"]["batch"], state["ema_samples"]
        record.write_text(json.dumps(state))
    run(toy_task(), config, "parts")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_a_second_start_goes_on(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path, number: int
) -> None:
    before = signal.getsignal(number)
    stopped = run(toy_task(), config, "parts", after_update=signalled_at(5, number))
    assert (stopped.step, stopped.finished) == (5, False)
    assert checkpoint_steps(tmp_path / "parts" / "checkpoints") == [3, 5]
    assert signal.getsignal(number) == before
    assert run(toy_task(), config, "parts").finished
    run(toy_task(), config, "whole")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_signal_at_a_checkpoint_step_finds_it_saved(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    stopped = run(toy_task(), config, after_update=signalled_at(6))
    assert (stopped.step, stopped.finished) == (6, False)
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [3, 6]
    assert run(toy_task(), config).finished


def test_a_second_signal_stops_at_once_and_says_what_was_saved(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    assert run(toy_task(), config, after_update=signalled_at(5, times=2)).step == 3
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [3]


def test_a_finished_run_is_left_as_it_is(toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path) -> None:
    run(toy_task(), config)
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    task = toy_task()
    assert run(task, config).finished
    assert task.batches == []
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def test_nan_loss_stops_with_a_sentence_and_keeps_the_last_good_checkpoint(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    task = toy_task()

    def poison(step: int) -> None:
        if step == 7:
            task.data[:] = math.nan

    with pytest.raises(UserError, match=r"loss of update 8 is nan.*checkpoints/00000006.*training\.optimizer\.lr"):
        run(task, config, after_update=poison)
    folder = tmp_path / "run" / "checkpoints"
    assert checkpoint_steps(folder) == [3, 6]
    assert all(bool(v.isfinite().all()) for v in load_checkpoint(folder / "last").tensors["model"].values())


def test_weights_that_are_not_finite_are_not_saved(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    """The loss of an update comes before its gradient: it may still be finite when the weights no longer are."""
    task = toy_task()

    def poison(step: int) -> None:
        if step == 6:
            next(task.model.parameters()).data.fill_(math.inf)

    with pytest.raises(UserError, match=r"weights after update 6 are not finite.*checkpoints/00000003"):
        run(task, config, after_update=poison)
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [3]


def test_an_evaluation_that_was_cut_off_is_made_up_for(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    config.evaluate_every = 4

    def interrupted(model: Denoiser) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal must stop the evaluation")

    stopped = run(toy_task(interrupted), config)
    assert (stopped.step, stopped.finished) == (4, False)
    scored: list[int] = []

    def score(model: Denoiser) -> dict[str, Any]:
        scored.append(1)
        return {"score": 0.5}

    assert run(toy_task(score), config).finished
    assert len(scored) == 3
    assert evaluation_of(tmp_path / "run" / "checkpoints" / "00000004") == {"score": 0.5}


def test_further_averages_are_saved_and_continue_bit_for_bit(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    config.ema.lengths, config.ema.half_life, config.ema.half_life_ramp = [0.05, 0.1], 30.0, 0.5
    run(toy_task(jitter=0.1), config, "whole")
    with killed_at(7) as crash:
        run(toy_task(jitter=0.1), config, "parts", after_update=crash)
    run(toy_task(jitter=0.1), config, "parts")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    saved = load_checkpoint(tmp_path / "whole" / "checkpoints" / "last")
    assert {"ema_0.05.safetensors", "ema_0.1.safetensors"} <= set(saved.state["files"])
    assert saved.state["ema_samples"] == 12 * config.batch_size
    key = "layers.0.weight"
    distances = [
        float((saved.tensors[name][key] - saved.tensors["model"][key]).norm()) for name in ("ema_0.05", "ema_0.1")
    ]
    assert 0 < distances[0] < distances[1]


def test_a_run_is_not_continued_on_other_data(toy_task: Any, config: TrainingConfig, run: Run) -> None:
    run(toy_task(), config)
    other = toy_task()
    other.fingerprint = "changed"
    with pytest.raises(UserError, match="was trained on other data"):
        run(other, config)


def test_a_cut_off_metrics_line_is_dropped_at_resume(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    with killed_at(8) as crash:
        run(toy_task(), config, after_update=crash)
    metrics = tmp_path / "run" / "metrics.jsonl"
    with open(metrics, "a") as file:
        file.write('{"step": 8, "lo')
    run(toy_task(), config)
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == sorted(set(steps))
    assert steps[-1] == 12
