"""What a user does next with a run, as `suggest` says it at the end of several commands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from policy_accel.commands.output import suggest
from policy_accel.errors import UserError
from policy_accel.run_files import OPEN_LOOP, read_config
from policy_accel.trust import PROGRAM


def trusted(options: argparse.Namespace) -> list[str]:
    """The words with which the user let modules of the run be imported."""
    return [*(["--plugins", ",".join(options.plugins)] if options.plugins else []), *["--trust"] * options.trust]


def _of_its_network(path: Path, options: argparse.Namespace) -> list[str]:
    """These words for a command that makes no environment: none where the user's modules have only that."""
    try:
        needed = path.suffix == PROGRAM or read_config(path).get("plugins")
    except UserError:
        needed = True
    return trusted(options) if needed else []


def after_training(track: str, run_dir: Path, *, scored: bool) -> None:
    """Of a finished run of the track "robot" or "images"."""
    if track == "images":
        suggest("draw images with it", ["sample", run_dir])
    elif scored:
        suggest("see it all on one page", ["report", run_dir])
    elif (run_dir / OPEN_LOOP).is_file():
        suggest("let a robot use it", ["serve", run_dir])
    else:
        suggest("compare it with demonstrations that it has not seen", ["evaluate", run_dir, "--data", "PATH"])


def after_evaluating(track: str, paths: Sequence[Path], options: argparse.Namespace) -> None:
    """Of runs that `evaluate` scored; an exported file cannot be exported again, nor compared."""
    checkpoint = [] if options.checkpoint == "last" else ["--checkpoint", options.checkpoint]
    words, quiet = trusted(options), options.json
    if track == "images":
        average = [] if options.average in (None, "all") else ["--average", options.average]
        suggest("draw images with it", ["sample", paths[0], *checkpoint, *average, *words], quiet=quiet)
    elif len(paths) > 1:
        if all(path.is_dir() for path in paths):
            suggest("tell which is better", ["compare", *paths], quiet=quiet)
    elif paths[0].is_file():
        suggest("let a robot use it", ["serve", paths[0], *_of_its_network(paths[0], options)], quiet=quiet)
    else:
        words = [*checkpoint, *_of_its_network(paths[0], options)]
        suggest("write it to a file for a robot", ["export", paths[0], "--to", "onnx", *words], quiet=quiet)


def after_exporting(path: Path, options: argparse.Namespace) -> None:
    """Of an exported policy; a program is loaded only by those who trust it."""
    words = ["--trust"] if path.suffix == PROGRAM and not options.trust else []
    suggest("score it", ["evaluate", path, *trusted(options), *words])
