"""The rows of metrics.jsonl, each number against one that is worked out another way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import killed_at, signalled_at, training_rows
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.run_files import read_metrics
from policy_accel.training import Trained, TrainingConfig
from policy_accel.training.checkpoint import load_checkpoint

Run = Callable[..., Trained]


@pytest.mark.parametrize("key", ["loss", "grad_norm"])
def test_a_row_holds_the_mean_since_the_row_before(
    key: str, toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    """Validation and checkpoints cut rows short, so that rows of fewer updates follow on longer ones."""
    config.optimizer.clip_grad_norm = 1e-3
    config.logging.every, config.checkpoint.every, config.validate_every = 1, 0, 0
    run(toy_task(), config, "each")
    values = {row["step"]: row[key] for row in training_rows(tmp_path / "each")}
    assert list(values) == list(range(1, 13))
    assert len(set(values.values())) == 12
    config.logging.every, config.checkpoint.every, config.validate_every = 4, 5, 7
    run(toy_task(), config, "few")
    before = 0
    for row in training_rows(tmp_path / "few"):
        expected = [values[step] for step in range(before + 1, row["step"] + 1)]
        assert row[key] == pytest.approx(sum(expected) / len(expected), rel=1e-5)
        before = row["step"]
    assert [row["step"] for row in training_rows(tmp_path / "few")] == [4, 5, 7, 10, 12]


def test_the_gradient_norm_is_that_before_clipping(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    """At most 1e-3 is left of a gradient after clipping; the norm of the log is that of the loss."""
    config.steps = config.logging.every = 1
    config.optimizer.clip_grad_norm = 1e-3
    task = toy_task()
    gradients: dict[str, Tensor] = {}
    for name, parameter in task.model.named_parameters():
        parameter.register_hook(lambda gradient, name=name: gradients.__setitem__(name, gradient))
    run(task, config)
    norm = torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum().sqrt()
    (row,) = training_rows(tmp_path / "run")
    assert row["grad_norm"] == pytest.approx(float(norm), rel=1e-5)
    assert row["grad_norm"] > 1e-2


def test_no_gradient_norm_is_logged_without_clipping(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    run(toy_task(), config)
    assert not any("grad_norm" in row for row in training_rows(tmp_path / "run"))


class Clock:
    """Seconds that pass by what is done: 1 for an update, 100 for a validation batch, 1000 for an evaluation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 50.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def passes(self, task: Any) -> Any:
        def after(method: Callable[..., Any], seconds: float) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                self.now += seconds
                return method(*arguments, **options)

            return call

        task.batch = after(task.batch, 1.0)
        task.validation_batch = after(task.validation_batch, 100.0)
        task.evaluate = after(task.evaluate, 1000.0)
        return task


@pytest.mark.parametrize("stop", [None, 5, 7, 8])
def test_training_seconds_are_those_of_all_updates_and_of_nothing_else(
    stop: int | None,
    toy_task: Any,
    config: TrainingConfig,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also in a run that was killed and goes on from its last checkpoint."""
    config.evaluate_every = 6
    clock = Clock(monkeypatch)

    def score(model: nn.Module) -> dict[str, Any]:
        return {"score": 0.5}

    if stop is not None:
        with killed_at(stop) as crash:
            run(clock.passes(toy_task(score)), config, after_update=crash)
        for path in (tmp_path / "run" / "checkpoints").glob("*/evaluation.json"):
            path.unlink()  # a score that was lost is made again, and is no training either
    trained = run(clock.passes(toy_task(score)), config)
    rows = training_rows(tmp_path / "run")
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps)), "rows of updates that were lost are dropped"
    assert steps[-1] == 12
    assert [row["training_seconds"] for row in rows] == [float(row["step"]) for row in rows]
    assert {row["steps_per_second"] for row in rows} == {1.0}
    assert trained.training_seconds == 12.0
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last").state["training_seconds"] == 12.0


def test_an_interrupted_run_counts_its_seconds(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    assert run(clock.passes(toy_task()), config, after_update=signalled_at(5)).training_seconds == 5.0
    assert run(clock.passes(toy_task()), config).training_seconds == 12.0
    rows = training_rows(tmp_path / "run")
    assert [row["training_seconds"] for row in rows] == [float(row["step"]) for row in rows]


def test_the_learning_rate_of_a_row_is_that_of_its_last_update(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    """Warm-up over two updates to 0.01, then half a cosine to nought at the end of the run."""
    config.logging.every, config.checkpoint.every, config.validate_every = 1, 0, 0
    run(toy_task(), config)
    rates = [row["lr"] for row in training_rows(tmp_path / "run")]
    expected = [0.01 * step / 2 for step in range(2)]
    expected += [0.01 * (1 + math.cos(math.pi * (step - 2) / 10)) / 2 for step in range(2, 12)]
    assert rates == pytest.approx(expected)


def test_only_a_last_line_may_be_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 is damaged .* remove that line"):
        read_metrics(path)
