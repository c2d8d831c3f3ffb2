"""Rollouts in a process of their own while the training goes on, in the environment of Push-T."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import killed_at

from policy_accel.errors import UserError
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.track import ROBOT
from policy_accel.run_files import checkpoint_steps, read_metrics
from policy_accel.scoring import ScoringProcess
from policy_accel.training.checkpoint import evaluation_of

TIMES = ("chunk_milliseconds", "seconds")


def config_of(run_dir: Path, *overrides: str) -> RobotConfig:
    return ROBOT.config(
        [
            "model=mlp",
            "model.hidden_dims=[16]",
            "model.step_embedding_dim=8",
            "task.max_steps=16",
            "training.device=cpu",
            "training.steps=6",
            "training.batch_size=8",
            "training.evaluate_every=2",
            "training.validate_every=3",
            "training.optimizer.warmup_steps=1",
            "training.checkpoint.keep_best=2",
            "training.checkpoint.every=1",
            "evaluation.episodes=3",
            "evaluation.slots=2",
            "evaluation.videos=1",
            "evaluation.workers=0",
            f"run_dir={run_dir}",
            *overrides,
        ]
    )


def found(run_dir: Path) -> dict[str, Any]:
    """Weights, results without their times, rows by step and kept checkpoints of a run."""
    folder = run_dir / "checkpoints"
    results = {step: evaluation_of(folder / f"{step:08d}") or {} for step in checkpoint_steps(folder)}
    rows = [row for row in read_metrics(run_dir / "metrics.jsonl") if "score" in row]
    return {
        "weights": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("last/*.safetensors")
        },
        "films": {path.name: path.read_bytes() for path in (run_dir / "videos").iterdir()},
        "results": {
            step: result and {k: v for k, v in result.items() if k not in TIMES} for step, result in results.items()
        },
        "rows": [{k: v for k, v in row.items() if k not in TIMES} for row in rows],
    }


def test_results_do_not_depend_on_it_also_after_an_interruption(tmp_path: Path) -> None:
    """The first part ends while the score of update 2 is under way, with later checkpoints written."""
    ROBOT.train(config_of(tmp_path / "waits"))
    overlapping = config_of(tmp_path / "overlaps", "evaluation.overlap=true")

    with killed_at(4) as crash:
        ROBOT.train(overlapping, after_update=crash)
    folder = tmp_path / "overlaps" / "checkpoints"
    assert {step: evaluation_of(folder / f"{step:08d}") for step in checkpoint_steps(folder)} == {2: None, 3: None}
    assert ROBOT.train(overlapping).finished
    waits, overlaps = found(tmp_path / "waits"), found(tmp_path / "overlaps")
    assert [row["step"] for row in waits["rows"]] == [2, 4, 6]
    assert len(waits["results"]) >= 3
    assert len(waits["films"]) == 1
    assert overlaps == waits


def test_a_process_that_has_ended_is_said(tmp_path: Path) -> None:
    process = ScoringProcess("robot", {}, torch.device("cpu"), threads=1)
    process.close()
    with pytest.raises(UserError, match=r"ended at the checkpoint of update 2 .*set evaluation\.overlap=false"):
        process.score(2)


def test_choices_that_the_process_does_not_know_are_said(tmp_path: Path) -> None:
    record = ROBOT.record(config_of(tmp_path))
    assert ROBOT.typed(record) == config_of(tmp_path)
    record["model"]["name"] = "unheard_of"
    with pytest.raises(UserError, match=r"model=unheard_of is unknown.*plugins=\[my_module\]"):
        ROBOT.typed(record)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["training.evaluate_every=0"], r"no score to make while this run trains; give training\.evaluate_every"),
        (["evaluation.episodes=0"], r"no score to make .* task\.environment and evaluation\.episodes"),
        (["acceleration/noise=nearest", "acceleration.noise.start_score=0.5"], r"name=nearest waits for one"),
    ],
)
def test_a_run_that_cannot_overlap_is_refused(overrides: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"evaluation\.overlap=true .*{sentence}"):
        ROBOT.build(config_of(tmp_path, "evaluation.overlap=true", *overrides))
