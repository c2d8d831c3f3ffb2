"""`policy-accel train` and `policy-accel demo`, for every track."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy_accel.commands.output import describe_result, keep_evaluation
from policy_accel.configuration import IMAGES, track_of
from policy_accel.errors import UserError, did_you_mean
from policy_accel.training.loop import Trained
from policy_accel.training.plot import plot_learning_curve

DEMOS = {"pusht": "recipe=demo", "images": "recipe=images_demo"}


def demo_overrides(arguments: Sequence[str]) -> list[str]:
    """Overrides of a demo: its name, `pusht` when none is given, and settings on top of it."""
    name, overrides = ("pusht", arguments) if not arguments or "=" in arguments[0] else (arguments[0], arguments[1:])
    if name not in DEMOS:
        raise UserError(f"there is no demo '{name}'; {did_you_mean(name, DEMOS)}")
    return [DEMOS[name], *overrides]


@dataclass(frozen=True)
class _Runs:
    """How a track configures, records and trains a run."""

    configure: Callable[[list[str]], Any]
    record: Callable[[Any], dict[str, Any]]
    train: Callable[[Any], Trained]


def _runs(overrides: Sequence[str]) -> _Runs:
    if track_of(overrides) is IMAGES:
        from policy_accel.images import run as images

        return _Runs(images.image_config, images.config_record, images.train_run)
    from policy_accel.policy import run as policy

    return _Runs(policy.robot_config, policy.config_record, policy.train_run)


def print_config(overrides: Sequence[str]) -> int:
    """Print the whole configuration as YAML."""
    import yaml

    runs = _runs(overrides)
    print(yaml.safe_dump(runs.record(runs.configure(list(overrides))), sort_keys=False), end="")
    return 0


def run_train(overrides: Sequence[str], *, again: str) -> int:
    """Train, score, draw, and say where everything is; `again` is the command that continues the run."""
    runs = _runs(overrides)
    config = runs.configure(list(overrides))
    run_dir = Path(config.run_dir)
    print(f"Training {config.task.name} with {config.model.name} in {run_dir}", file=sys.stderr)
    trained = runs.train(config)
    if not trained.finished:
        stopped = f"Stopped after {trained.step} of {config.training.steps} updates"
        if trained.step == config.training.steps:
            stopped = "Trained, and stopped before the score was complete"
        print(f"{stopped}, saved in {run_dir}. To go on: {again}", file=sys.stderr)
        raise KeyboardInterrupt
    rate = trained.step / max(trained.training_seconds, 1e-9)
    print(f"Trained {trained.step} updates in {trained.training_seconds:.0f} s ({rate:.1f} updates/s).")
    if trained.evaluation is not None:
        if not (run_dir / "evaluation.json").is_file():
            keep_evaluation(run_dir, {"step": trained.step, **trained.evaluation})
        print(describe_result(trained.evaluation))
        for folder, what in (("videos", "Rollout videos"), ("samples", "Sample grids and their film")):
            if (run_dir / folder).is_dir():
                print(f"{what}: {run_dir / folder}")
        print(f"All numbers of the score: {run_dir / 'evaluation.json'}")
    print(f"Learning curve: {plot_learning_curve(run_dir)}")
    return 0
