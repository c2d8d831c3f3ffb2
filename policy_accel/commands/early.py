"""What a command line names and is not there, told before torch is imported, which takes seconds.

The sentences are those of whatever reads the same later. Nothing here imports torch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from policy_accel.commands.known_settings import all_known
from policy_accel.errors import UserError
from policy_accel.files import explained
from policy_accel.run_files import CONFIG, STATE, begun_with, check_checkpoint, read_config, weights_file
from policy_accel.typed_values import NOTHING

AS_TRAIN = ("demo:run_demo", "train:run_train", "list:run_list", "benchmark:run_step", "benchmark:run_sample")
"""Commands with the settings of `train` (of `list`, that of parameters has them). `doctor` has them too, and lists what
is missing."""
READ = ("task.data", "task.layout", "task.autoencoder", "encoder.weights", "init_from")
"""Settings that are the path of something to read; what measures need is left to what says where to get it."""
FIRST = ("encoder.weights", "init_from")
"""Those that a run needs only to begin."""
ARGUMENTS = ("dataset", "data", "path", "input", "layout", "autoencoder", "edit", "inpaint", "reference")
"""Arguments that are."""
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
    if options.run in AS_TRAIN:
        _check_settings(settings, options)
    elif "plan" in given:
        from policy_accel.sweep.file import read_file

        read_file(options.plan)
    elif options.command == "sweep" and settings and not options.status:
        _check_sweep(settings)
    with _wrong_keys_first(settings):
        for name in ARGUMENTS:
            if given.get(name) is not None:
                check_data(str(given[name]))


def check_run(run_dir: Path, checkpoint: str = "last") -> None:
    """Raise UserError where there is no run, or it has no checkpoint of a step that is named.

    Exported policies and models of other libraries are left to what reads them.
    """
    if not weights_file(run_dir).is_file() and not (run_dir / STATE).is_file():
        read_config(run_dir)
        if checkpoint not in ("last", "best"):  # a run that has none yet may lack the user's trust first
            check_checkpoint(run_dir, checkpoint)


def check_data(path: str, setting: str = "") -> None:
    """Raise UserError where a file or folder is not there, the value of a `setting` or of an argument; one that may be
    no plain path is let through."""
    if _is_path(path):
        place = os.path.expanduser(path)
        with explained(Path(f"{setting}={path}" if setting else place), "read"):
            os.stat(place)


def _is_path(value: str) -> bool:
    nothing = (*NOTHING, "???")
    return value not in nothing and not value.startswith("shipped:") and "::" not in value and not SPECIAL & set(value)


@contextmanager
def _wrong_keys_first(settings: Sequence[str]) -> Iterator[None]:
    """Leave what is missing to the track where it is to name a wrong key or choice first, which takes torch."""
    try:
        yield
    except UserError:
        if all_known(settings):
            raise


def _check_settings(settings: list[str], options: argparse.Namespace) -> None:
    from policy_accel.commands.list import PARAMETERS
    from policy_accel.configuration import source_of  # which imports Hydra

    if options.run == "list:run_list" and options.kind != PARAMETERS:  # which takes none, and says so
        return
    if options.run == "demo:run_demo" and settings and "=" not in settings[0]:  # its name
        settings = settings[1:]
    source_of([setting for setting in settings if "=" in setting], options.config_dir)
    if not getattr(options, "print_config", False):
        values = dict(setting.partition("=")[::2] for setting in settings)
        with _wrong_keys_first(settings):
            for key in READ:
                _check_value(key, values.get(key, ""), values.get("run_dir"))


def _check_sweep(arguments: list[str]) -> None:
    from policy_accel.sweep.file import file_of, is_own, read_file

    file = file_of(arguments)
    lines = [*(read_file(file) if file else ()), *arguments[1 if file else 0 :]]
    values = dict(line.partition("=")[::2] for line in lines if not is_own(line))
    several = [(key, part) for key, value in values.items() for part in value.split(",")]
    with _wrong_keys_first([f"{key}={part}" for key, part in several]):
        for key, part in several:
            if key in READ:
                _check_value(key, part, run_dir=None)


def _check_value(key: str, value: str, run_dir: str | None) -> None:
    if not _is_path(value) or (key in FIRST and _has_begun(value, run_dir)):
        return
    if key == "init_from":
        begun_with(os.path.expanduser(value))
    else:
        check_data(value, key)


def _has_begun(weights: str, run_dir: str | None) -> bool:
    """Whether a run may go on that began with these weights, and has its own by now."""
    runs = Path("runs").glob("*") if run_dir is None else [Path(os.path.expanduser(run_dir))]
    records = (run / CONFIG for run in runs if (run / "checkpoints").is_dir() and (run / CONFIG).is_file())
    return not _is_path(run_dir or ".") or any(weights in file.read_text(errors="replace") for file in records)
