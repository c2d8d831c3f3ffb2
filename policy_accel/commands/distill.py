"""`policy-accel distill`, for every track."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from policy_accel.commands.output import suggest
from policy_accel.commands.then import after_training, trusted
from policy_accel.commands.train import train
from policy_accel.distill import student_config
from policy_accel.launched import speaks
from policy_accel.track import track_of_run
from policy_accel.trust import admit


def run_distill(options: argparse.Namespace) -> int:
    """Train the student, score it, and say where everything is; or print its configuration as YAML."""
    admit(options.run_dir, options.plugins, trust=options.trust)
    track = track_of_run(options.run_dir)
    config = student_config(track, options.run_dir, options.checkpoint, options.evaluations, options.overrides)
    if options.print_config:
        print(yaml.safe_dump(track.record(config), sort_keys=False), end="")
        return 0
    if speaks():
        times = ", ".join(f"{time:g}" for time in track.record(config)["sampling"]["times"])
        teacher = f"{options.run_dir} (checkpoint {config.distillation.checkpoint})"
        print(f"A student of {teacher}, evaluated at the times {times}", file=sys.stderr)
    words = ["distill", str(options.run_dir), "--evaluations", str(options.evaluations), *options.overrides]
    for name, value, plain in (
        ("--checkpoint", options.checkpoint, "last"),
        ("--plugins", ",".join(options.plugins), ""),
    ):
        words += [] if value == plain else [name, value]
    words += ["--trust"] if options.trust else []
    status, student = train(track, config, words), Path(config.run_dir)
    if track.name == "robot" and (student / "evaluation.json").is_file():
        suggest("set it beside its teacher", ["evaluate", options.run_dir, student, *trusted(options)])
    else:
        after_training(track.name, student, scored=False)
    return status
