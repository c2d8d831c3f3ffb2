"""Runs that become longer or are scored otherwise, on the toy task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from policy_accel.errors import UserError
from policy_accel.run_files import may_change, read_metrics
from policy_accel.training import Trained, TrainingConfig
from policy_accel.training.checkpoint import load_checkpoint
from policy_accel.training.optimizer import step_values

Run = Callable[..., Trained]


def assert_equal_bits(one: Path, other: Path) -> None:
    first, second = (load_checkpoint(run / "checkpoints" / "last").tensors for run in (one, other))
    for name in first.keys() | second.keys():
        assert all(torch.equal(value, second[name][key]) for key, value in first[name].items())


def stop_at(step: int) -> Callable[[int], None]:
    def stop(now: int) -> None:
        if now == step:
            raise RuntimeError("stopped")

    return stop


def test_a_finished_run_at_a_constant_rate_has_the_bits_of_a_longer_one(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.optimizer.schedule = "constant"
    run(toy_task(jitter=0.1), config, "whole")
    config.steps = 6
    run(toy_task(jitter=0.1), config, "parts")
    config.steps = 12
    capsys.readouterr()
    assert run(toy_task(jitter=0.1), config, "parts").step == 12
    assert_equal_bits(tmp_path / "whole", tmp_path / "parts")
    said = capsys.readouterr().err
    assert "going on from step 6 with other settings than before: training.steps: 6 -> 12" in said
    assert "is from now on that of a run of 12 updates (0.01 -> 0.01)" in said
    parts = tmp_path / "parts"
    assert yaml.safe_load((parts / "config.yaml").read_text()) == {"training": {"steps": 12}}
    assert json.loads((parts / "changes.jsonl").read_text()) == {"step": 6, "changes": {"training.steps": [6, 12]}}
    assert run(toy_task(jitter=0.1), config, "parts").finished
    assert len((parts / "changes.jsonl").read_text().splitlines()) == 1
    assert "other settings" not in capsys.readouterr().err


def test_a_run_before_its_decay_goes_on_at_the_stable_rate(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    config.optimizer.schedule, config.optimizer.decay_share = "warmup_stable_decay", 0.25
    run(toy_task(), config, "whole")
    config.steps = 8  # the decay begins at 6
    with pytest.raises(RuntimeError):
        run(toy_task(), config, "parts", after_update=stop_at(7))
    config.steps = 12
    run(toy_task(), config, "parts")
    assert_equal_bits(tmp_path / "whole", tmp_path / "parts")


def test_the_cosine_of_a_longer_run_begins_where_that_run_would_be(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.steps, config.logging.every = 6, 1
    run(toy_task(), config)
    config.steps = 12
    run(toy_task(), config)
    rates = {row["step"]: row["lr"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "lr" in row}
    planned = [step_values(config.optimizer, step, 6 if step < 6 else 12)[0] for step in range(12)]
    assert [rates[step] for step in range(1, 13)] == planned
    assert planned[6] > planned[5]
    assert f"a run of 12 updates (0 -> {planned[6]:.3g})" in capsys.readouterr().err


def test_a_run_does_not_become_shorter_than_it_is(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError):
        run(toy_task(), config, after_update=stop_at(8))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    config.steps = 5
    with pytest.raises(UserError, match=r"training\.steps=5 is less than the 6 updates that run_dir=.* has made"):
        run(toy_task(), config)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    config.steps = 6
    assert run(toy_task(), config).finished


@pytest.mark.parametrize(
    ("key", "settings", "free"),
    [
        ("training.steps", {}, True),
        ("training.checkpoint.every", {}, True),
        ("evaluation.episodes", {}, True),
        ("sampling.steps", {}, True),
        ("task.environment", {}, True),
        ("task.environment_options.width", {}, True),
        ("task.data", {}, True),
        ("task.episodes", {}, True),
        ("plugins", {}, True),
        ("training.optimizer.lr", {}, False),
        ("training.batch_size", {}, False),
        ("training.steps_more", {}, False),
        ("task.val_ratio", {}, False),
        ("init_from", {}, False),
        ("evaluation.episodes", {"acceleration.noise.start_score": 0.5}, False),
        ("evaluation.workers", {"acceleration.noise.start_score": 0.5}, True),
        ("evaluation.episodes", {"acceleration.noise.start_score": None}, True),
        ("sampling.times", {"distillation.teacher": "runs/teacher"}, False),
        ("evaluation.episodes", {"distillation.teacher": "runs/teacher"}, True),
    ],
)
def test_only_what_no_update_follows_from_may_change(key: str, settings: dict[str, Any], free: bool) -> None:
    assert may_change(key, settings) is free


def test_another_way_to_score_goes_on_with_the_same_bits(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    def record(**changed: Any) -> dict[str, Any]:
        return {
            "training": {"evaluate_every": config.evaluate_every, "lr": 1, **changed},
            "evaluation": {"episodes": 5},
        }

    run(toy_task(), config, "whole", run_config=record())
    with pytest.raises(RuntimeError):
        run(toy_task(), config, "parts", run_config=record(), after_update=stop_at(7))
    with pytest.raises(UserError, match=r"\(training\.lr: 1 -> 2\); choose another run_dir \(with init_from="):
        run(toy_task(), config, "parts", run_config=record(lr=2))
    config.evaluate_every, config.checkpoint.keep_last = 3, 4
    task = toy_task(lambda model: {"score": 0.5})
    run(task, config, "parts", run_config=record())
    assert task.evaluated == [6, 9, 12]
    assert_equal_bits(tmp_path / "whole", tmp_path / "parts")


def test_a_run_that_cannot_go_on_keeps_its_settings(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    run(toy_task(), config)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    config.steps, other = 20, toy_task()
    other.fingerprint = "other data"
    with pytest.raises(UserError, match=r"trained on other data .* \(with init_from="):
        run(other, config)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
