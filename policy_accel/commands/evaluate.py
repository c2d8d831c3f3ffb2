"""`policy-accel evaluate`, for every track."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from policy_accel.commands.output import keep_evaluation, score_table
from policy_accel.commands.then import after_evaluating
from policy_accel.configuration import SOURCES
from policy_accel.errors import UserError
from policy_accel.files import check_writable, explained
from policy_accel.robot.control.config import DRIVING
from policy_accel.run_files import results_folder, weights_file
from policy_accel.track import Track, track_of_run
from policy_accel.training.devices import choose_device
from policy_accel.training.ranks import Ranks, joined
from policy_accel.trust import admit

DELAY = ("delay_ms", *DRIVING)
OPEN_LOOP = ("layout", "data_episodes", "windows")
MEASURED = ("protocol", "inception", "reference", "mirrored_reference", "resnet")
GUIDE = ("guide", "guide_checkpoint", "guide_average")
OPTIONS = {
    "robot": ("episodes", "noise_seed", "workers", "videos", "camera", "fresh", "untuned", *DELAY, *OPEN_LOOP),
    "images": ("samples", "batch_size", "guidance", "guidance_interval", "churn", *GUIDE, *MEASURED),
}
"""Arguments that only one track takes."""


def run_evaluate(options: argparse.Namespace) -> int:
    """Score a checkpoint of each run, or measure it on demonstrations, and print what comes of it; with --json one JSON
    object instead, the result or {"runs": results}, and the rest on the standard error.

    Raises:
        UserError: a result that could not be kept, after all are printed.
    """
    options.run_dirs = [weights_file(path) for path in options.run_dirs]
    options.guide = options.guide and weights_file(options.guide)
    for run_dir in (*options.run_dirs, *filter(None, [options.guide])):
        admit(run_dir, options.plugins, trust=options.trust, environment=options.data is None)
    runs = [(run_dir, track_of_run(run_dir)) for run_dir in options.run_dirs]
    for run_dir, track in runs:
        if track.name != "robot" and len(runs) > 1:
            raise UserError(f"{run_dir} is a run of {track.source.trains}; evaluate such runs one at a time.")
        for owner, names in OPTIONS.items():
            for name in names if owner != track.name else ():
                if getattr(options, name) is not None and getattr(options, name) is not False:
                    option = f"--{name.replace('_', '-')}"
                    asked, given = SOURCES[owner].trains, track.source.trains
                    raise UserError(f"{option} is for {asked}, and {run_dir} is a run of {given}; drop it.")
    with joined(choose_device(options.device, "--device")) as ranks:
        return _evaluate(runs, options, ranks)


def _evaluate(runs: list[tuple[Path, Track[Any]]], options: argparse.Namespace, ranks: Ranks) -> int:
    if not ranks.first:  # which speaks and writes
        for run_dir, track in runs:
            track.evaluate(run_dir, options, lambda line: None, ranks)
        return 0
    results, unkept, say = [], [], _say if options.json else print
    for run_dir, track in runs:
        if len(runs) > 1:
            say(f"{run_dir}:")
        home = results_folder(run_dir)
        try:
            with explained(home):
                home.mkdir(exist_ok=True)
            check_writable(home)
        except UserError as error:  # a shared run, for example
            _say(f"{error} It is scored, and the result is only printed.")
        result = track.evaluate(run_dir, options, say, ranks)
        try:
            keep_evaluation(home, result)
        except UserError as error:  # after the result is printed
            unkept.append(error)
        results.append({"run_dir": str(run_dir), **result})
    scored = [result for result in results if "score" in result]
    if len(scored) > 1:
        say(score_table(scored))
    if options.json:
        print(json.dumps(result if len(results) == 1 else {"runs": results}))
    if unkept:
        raise unkept[0]
    after_evaluating(runs[0][1].name, [run_dir for run_dir, _ in runs], options)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)
