"""Scores that are made while the training goes on, by a scorer that the test holds back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.runs import signalled_at
from support.simulated_cuda import SimulatedCuda

from policy_accel.errors import UserError
from policy_accel.models import Denoiser
from policy_accel.run_files import checkpoint_steps, read_metrics
from policy_accel.training import Trained, TrainingConfig
from policy_accel.training.checkpoint import evaluation_of, load_checkpoint
from policy_accel.training.scoring import Scored

Run = Callable[..., Trained]
WEIGHT = "layers.0.weight"


def score_of(model: Denoiser) -> dict[str, Any]:
    return {"score": float(model.state_dict()[WEIGHT].cpu().sum())}


class Scorer:
    """Scores the checkpoints in a folder as `score_of` does; that of the step `held` not before it is let go."""

    def __init__(self, run_dir: Path, held: int | None = None) -> None:
        self.folder, self.held, self.let_go = run_dir / "checkpoints", held, threading.Event()
        self.closed = False
        self.began: list[int] = []

    def score(self, step: int) -> Scored:
        self.began.append(step)
        averaged = load_checkpoint(self.folder / f"{step:08d}", ("ema",)).tensors["ema"]
        if step == self.held:
            assert self.let_go.wait(60)
        if self.closed:
            raise UserError("closed")
        return {"score": float(averaged[WEIGHT].sum())}, []

    def close(self) -> None:
        self.closed = True
        self.let_go.set()


@pytest.fixture
def often(config: TrainingConfig) -> TrainingConfig:
    """Scored after updates 4, 8 and 12, checkpoints each second update."""
    config.evaluate_every, config.checkpoint.every, config.validate_every = 4, 2, 0
    config.checkpoint.keep_best = 1
    return config


def scores(run_dir: Path) -> dict[int, float]:
    return {row["step"]: row["score"] for row in read_metrics(run_dir / "metrics.jsonl") if "score" in row}


def evaluations(run_dir: Path) -> dict[int, Any]:
    folder = run_dir / "checkpoints"
    return {step: evaluation_of(folder / f"{step:08d}") for step in checkpoint_steps(folder)}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_results_are_those_of_a_training_that_waits(
    device: str, device_task: Callable[..., Any], toy_task: Any, often: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    often.device = device
    with SimulatedCuda():
        task = device_task()
        task.score = score_of
        waited = run(task, often, "waited")
        scorer = Scorer(tmp_path / "beside")
        beside = run(device_task(), often, "beside", scorer=scorer)
    assert scorer.began == [4, 8, 12]
    assert scorer.closed
    assert beside.evaluation == waited.evaluation
    assert scores(tmp_path / "beside") == scores(tmp_path / "waited")
    assert list(scores(tmp_path / "beside")) == [4, 8, 12]
    assert evaluations(tmp_path / "beside") == evaluations(tmp_path / "waited")


def test_training_goes_on_and_the_checkpoint_is_kept_until_its_score_is_there(
    toy_task: Any, often: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    """That of update 8 waits for it: one is made at a time."""
    often.checkpoint.every = 1
    scorer, kept = Scorer(tmp_path / "run", held=4), []

    def after(step: int) -> None:
        if step == 7:
            kept.extend(checkpoint_steps(tmp_path / "run" / "checkpoints"))
        if step == 8:
            assert scorer.began == [4]
            threading.Timer(0.3, scorer.let_go.set).start()

    run(toy_task(), often, after_update=after, scorer=scorer)
    assert kept == [4, 5, 6]
    rows = [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert rows[:10] == [1, 2, 3, 4, 5, 6, 7, 8, 4, 9], "its row came late, before that of update 8 was begun"
    assert list(scores(tmp_path / "run")) == [4, 8, 12]


def test_a_score_that_fails_ends_the_run_at_the_next_log_point(
    toy_task: Any, often: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    class Broken(Scorer):
        def score(self, step: int) -> Scored:
            raise UserError(f"no score of {step}")

    with pytest.raises(UserError, match="no score of 4"):
        run(toy_task(), often, scorer=Broken(tmp_path / "run"))
    assert evaluation_of(tmp_path / "run" / "checkpoints" / "00000004") is None


@pytest.mark.parametrize(("held", "stop"), [(4, 5), (4, 7), (12, None)])
def test_a_score_that_was_under_way_is_made_again(
    held: int, stop: int | None, toy_task: Any, often: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    """Also when later checkpoints were written since, and after the last update."""

    class Interrupted(Scorer):
        def score(self, step: int) -> Scored:
            if step == 12:
                os.kill(os.getpid(), signal.SIGINT)
            return super().score(step)

    scorer = Interrupted(tmp_path / "parts", held)
    assert not run(toy_task(), often, "parts", after_update=signalled_at(stop), scorer=scorer).finished
    assert evaluations(tmp_path / "parts")[held] is None
    again = Scorer(tmp_path / "parts")
    assert run(toy_task(), often, "parts", scorer=again).finished
    assert again.began == list(range(held, 13, 4))
    run(toy_task(score_of), often, "whole")
    assert scores(tmp_path / "parts") == scores(tmp_path / "whole")
    assert evaluations(tmp_path / "parts") == evaluations(tmp_path / "whole")
