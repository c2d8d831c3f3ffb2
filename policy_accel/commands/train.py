"""`policy-accel train`, for every track."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from policy_accel.commands.output import again, keep_evaluation, words_of
from policy_accel.commands.then import after_training
from policy_accel.configuration import source_of
from policy_accel.errors import UserError
from policy_accel.launched import speaks
from policy_accel.parsing import read_record
from policy_accel.run_files import OPEN_LOOP, read_metrics
from policy_accel.track import Track, track
from policy_accel.training.checkpoint import evaluation_of
from policy_accel.training.loop import Trained
from policy_accel.training.plot import plot_learning_curve


def run_train(options: argparse.Namespace) -> int:
    """Train, score, draw, and say where everything is; or print the whole configuration as YAML."""
    chosen = track(source_of(options.overrides, options.config_dir).track)
    config = chosen.config(options.overrides, options.config_dir, say)
    if not options.print_config:
        status = train(chosen, config, words_of(options))
        after_training(chosen.name, Path(config.run_dir), scored=(Path(config.run_dir) / "evaluation.json").is_file())
        return status
    print(yaml.safe_dump(chosen.record(config), sort_keys=False), end="")
    return 0


def train(chosen: Track[Any], config: Any, words: Sequence[str]) -> int:
    """Train a run and say how it went; `words` are the command that started it."""
    run_dir = Path(config.run_dir)
    trained = chosen.train(
        config,
        begins=lambda: say(f"Training {config.task.name} with {config.model.name} in {run_dir}"),
        page=lambda trained: _page(run_dir, trained),
    )
    if not speaks():
        return 0
    if not trained.finished:
        stopped = f"Stopped after {trained.step} of {config.training.steps} updates"
        if trained.step == config.training.steps:
            stopped = "Trained, and stopped before the score was complete"
        print(f"{stopped}, saved in {run_dir}. To go on: {again(words)}", file=sys.stderr)
        raise KeyboardInterrupt
    rate = trained.step / max(trained.training_seconds, 1e-9)
    print(f"Trained {trained.step} updates in {trained.training_seconds:.0f} s ({rate:.1f} updates/s).")
    if trained.evaluation is not None:
        _keep_score(run_dir, trained)
        print(chosen.describe(trained.evaluation))
        for folder, what in (("videos", "Rollout videos"), ("samples", "Sample grids and their film")):
            if (run_dir / folder).is_dir() and any((run_dir / folder).iterdir()):
                print(f"{what}: {run_dir / folder}")
        print(f"All numbers of the score: {run_dir / 'evaluation.json'}")
    else:
        _measure(chosen, config, trained)
    print(f"Learning curve: {plot_learning_curve(run_dir)}")
    return 0


def _measure(chosen: Track[Any], config: Any, trained: Trained) -> None:
    """What a run without a score can be measured by, once; that it cannot be is no fault of the run."""
    run_dir = Path(config.run_dir)
    record = run_dir / OPEN_LOOP
    try:
        if record.is_file() and read_record(record, "remove it").get("step") == trained.step:
            print(f"Compared with demonstrations: {record}")
            return
        measured = chosen.unscored(config, print)
    except UserError as error:
        print(f"Its actions were not compared with held-out ones: {error}")
        return
    if measured is not None:
        keep_evaluation(run_dir, measured)
        print(f"All numbers: {record}")


def say(line: str) -> None:
    """Tell the user, once where several processes run."""
    if speaks():
        print(line, file=sys.stderr)


def _keep_score(run_dir: Path, trained: Trained) -> None:
    """Keep the score of the last update, once: whoever scored the run again meanwhile has the newer one."""
    if trained.evaluation is None:
        return
    kept = [evaluation_of(run_dir) or {}, *read_metrics(run_dir / "evaluations.jsonl")]
    if trained.step not in [row.get("step") for row in kept]:
        keep_evaluation(run_dir, {"step": trained.step, **trained.evaluation})


def _page(run_dir: Path, trained: Trained) -> Path | None:
    """The report of a run that is also shown elsewhere; None, and a sentence, where it cannot be made."""
    from policy_accel.commands.report import write_report  # which only runs that are shown elsewhere need

    _keep_score(run_dir, trained)
    try:
        return write_report([run_dir], run_dir / "report.html")
    except UserError as error:
        print(f"No report was made: {error}", file=sys.stderr)
        return None
