"""What a command line names and is not there, told before torch is imported, which takes seconds.

The sentences are those of whatever reads the same later. Nothing here imports torch.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from policy_accel.files import explained
from policy_accel.run_files import STATE, check_checkpoint, read_config, weights_file
from policy_accel.typed_values import NOTHING

AS_TRAIN = ("demo:run_demo", "train:run_train", "list:run_list", "benchmark:run_step", "benchmark:run_sample")
"""Commands with the settings of `train` (of `list`, that of parameters has them). `doctor` has them too, and lists what
is missing; of `sweep` they have several values."""
SPECIAL = frozenset("'\"[]{}$,")
"""Characters of a value that may be something else than the path that it looks like."""


def check_named(options: argparse.Namespace) -> None:
    """Raise UserError where a run, a checkpoint, data or a YAML file is not there that a command line names."""
    given, settings = vars(options), list(getattr(options, "overrides", ()))
    runs = [given["run_dir"]] if "run_dir" in given else [*given.get("run_dirs", ())]
    if options.run == "benchmark:run_sample" and "=" not in settings[0]:
        runs, settings = [Path(word) for word in settings if len(settings) == 1], []  # with settings it is refused
    for run_dir in runs:
        check_run(run_dir, given.get("checkpoint", "last"))
    if given.get("guide") is not None:
        check_run(options.guide)
    for name in ("dataset", "data"):
        if given.get(name) is not None:
            check_data(given[name])
    if options.run in AS_TRAIN:
        _check_settings(settings, options)
    elif "plan" in given or (options.command == "sweep" and settings and not options.status):
        from policy_accel.sweep.file import file_of, read_file

        if (file := given.get("plan", file_of(settings))) is not None:
            read_file(file)


def check_run(run_dir: Path, checkpoint: str = "last") -> None:
    """Raise UserError where there is no run, or it has no checkpoint of a step that is named.

    Exported policies and models of other libraries are left to what reads them.
    """
    if not weights_file(run_dir).is_file() and not (run_dir / STATE).is_file():
        read_config(run_dir)
        if checkpoint not in ("last", "best"):  # a run that has none yet may lack the user's trust first
            check_checkpoint(run_dir, checkpoint)


def check_data(path: str) -> None:
    """Raise UserError where data are not there; a value that may be no plain path is let through."""
    nothing = (*NOTHING, "???")
    if path not in nothing and not path.startswith("shipped:") and "::" not in path and not SPECIAL & set(path):
        place = Path(os.path.expanduser(path))
        with explained(place, "read"):
            os.stat(place)


def _check_settings(settings: list[str], options: argparse.Namespace) -> None:
    from policy_accel.commands.list import PARAMETERS
    from policy_accel.configuration import source_of  # which imports Hydra

    if options.run == "list:run_list" and options.kind != PARAMETERS:  # which takes none, and says so
        return
    settings = [setting for setting in settings if "=" in setting]  # `demo` has a name before them
    source_of(settings, options.config_dir)
    data = dict(setting.partition("=")[::2] for setting in settings).get("task.data")
    if data is not None and not getattr(options, "print_config", False):
        check_data(data)
