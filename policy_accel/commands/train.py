"""`policy-accel train` and `policy-accel demo`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from policy_accel.commands.output import describe_score, keep_evaluation
from policy_accel.policy.run import config_record, robot_config, train_run
from policy_accel.training.plot import plot_learning_curve


def print_config(overrides: Sequence[str]) -> int:
    """Print the whole configuration as YAML."""
    import yaml

    print(yaml.safe_dump(config_record(robot_config(list(overrides))), sort_keys=False), end="")
    return 0


def run_train(overrides: Sequence[str], *, again: str) -> int:
    """Train, score, draw, and say where everything is; `again` is the command that continues the run."""
    config = robot_config(list(overrides))
    run_dir = Path(config.run_dir)
    print(f"Training {config.task.name} with {config.model.name} in {run_dir}", file=sys.stderr)
    trained = train_run(config)
    if not trained.finished:
        stopped = f"Stopped after {trained.step} of {config.training.steps} updates"
        if trained.step == config.training.steps:
            stopped = "Trained, and stopped before all episodes were scored"
        print(f"{stopped}, saved in {run_dir}. To go on: {again}", file=sys.stderr)
        raise KeyboardInterrupt
    curve = plot_learning_curve(run_dir)
    rate = trained.step / max(trained.training_seconds, 1e-9)
    print(f"Trained {trained.step} updates in {trained.training_seconds:.0f} s ({rate:.1f} updates/s).")
    if trained.evaluation is not None:
        if not (run_dir / "evaluation.json").is_file():
            keep_evaluation(run_dir, {"step": trained.step, **trained.evaluation})
        print(describe_score(trained.evaluation))
        if config.evaluation.videos:
            print(f"Rollout videos: {run_dir / 'videos'}")
        print(f"Score by episode: {run_dir / 'evaluation.json'}")
    print(f"Learning curve: {curve}")
    return 0
