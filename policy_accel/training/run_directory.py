"""The directory of a run: one configuration, its metrics and its checkpoints; made, locked, and read again."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import yaml
from omegaconf.errors import OmegaConfBaseException

from policy_accel.errors import UserError, typed_as
from policy_accel.files import append_text, check_place, explained, no_link, replace_text
from policy_accel.groups import flatten, typed
from policy_accel.run_files import (
    CHANGES,
    CONFIG,
    FREE_KEYS,
    STATE,
    below,
    check_checkpoint,
    checkpoint_steps,
    may_change,
    read_config,
    read_metrics,
    record_of,
)
from policy_accel.training.checkpoint import best_checkpoint
from policy_accel.typed_values import check_finite

LOCK = ".lock"


def changed(
    old: dict[str, Any], new: dict[str, Any], defaults: dict[str, Any] | None = None
) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ, each with both, but for those of the machine that it runs on.

    A key that `old` lacks, as it was written by an earlier version, counts as what `defaults` has.
    """
    before, after = {**flatten(defaults or {}), **flatten(old)}, flatten(new)
    keys = [key for key in sorted({*flatten(old), *after}) if before.get(key) != after.get(key)]
    return {key: (before.get(key), after.get(key)) for key in keys if not below(key, FREE_KEYS)}


def in_words(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Changes as a user types the values, "key: old -> new"."""
    return [f"{key}: {typed_as(before)} -> {typed_as(after)}" for key, (before, after) in changes.items()]


def differences(old: dict[str, Any], new: dict[str, Any], defaults: dict[str, Any] | None = None) -> list[str]:
    """`changed` in words: "key: old -> new"."""
    return in_words(changed(old, new, defaults))


def open_run_directory(
    run_dir: Path, config: dict[str, Any], defaults: dict[str, Any] | None = None
) -> tuple[TextIO, dict[str, tuple[Any, Any]]]:
    """Make `run_dir` for `config`, or check that it may go on with it, and lock it.

    `defaults` are the values of keys that the configuration of an earlier version may lack.

    A directory in which nothing was learnt yet may change its configuration, any other what `may_change`, which
    `record_changes` writes once the run is known to go on.

    Returns:
        The lock, which lets go of the directory when it is closed; and what a run that goes on has otherwise.

    Raises:
        UserError: the directory holds another configuration or other files, another process trains in it, or it cannot
            be written.
    """
    check_run_directory(run_dir, config, defaults)
    with explained(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = _lock(run_dir)
        old = check_run_directory(run_dir, config, defaults)
        if old and _has_learnt(run_dir):
            return lock, changed(old, config, defaults)
        if old != config or not (run_dir / CONFIG).is_file():
            _record(run_dir, config)
    return lock, {}


def record_changes(run_dir: Path, config: dict[str, Any], changes: dict[str, tuple[Any, Any]], step: int) -> None:
    """Write what a run has otherwise from `step` on: its configuration, and a row in `CHANGES`."""
    with explained(run_dir):
        if changes:
            append_text(run_dir / CHANGES, json.dumps({"step": step, "changes": changes}) + "\n")
        if read_config(run_dir) != config:
            _record(run_dir, config)


def _record(run_dir: Path, config: dict[str, Any]) -> None:
    replace_text(run_dir / CONFIG, yaml.safe_dump(config, sort_keys=False))


def check_run_directory(
    run_dir: Path, config: dict[str, Any], defaults: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The configuration that is there, {} for none, after a check that `config` may go on with it; see
    `open_run_directory`. Nothing is written.

    Raises:
        UserError: the directory holds another configuration or other files, cannot be read or made; fewer
            updates are asked for than were made.
    """
    check_place(run_dir)
    record = run_dir / CONFIG
    with explained(run_dir, "read"):
        if run_dir.is_dir() and not record.is_file() and any(_foreign(path) for path in run_dir.iterdir()):
            raise UserError(f"run_dir={run_dir} is not empty and is not a run of ours; choose another run_dir.")
        old = read_config(run_dir) if record.is_file() else {}
        changes = changed(old, config, defaults) if old else {}
        if changes and _has_learnt(run_dir):
            _check_continued(run_dir, changes, flatten(config))
    return old


def _check_continued(run_dir: Path, changes: dict[str, tuple[Any, Any]], settings: dict[str, Any]) -> None:
    lines = in_words({key: values for key, values in changes.items() if not may_change(key, settings)})
    if lines:
        shown = "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")
        raise UserError(
            f"run_dir={run_dir} holds a run with another configuration ({shown}); choose another run_dir (with "
            f"init_from={run_dir} it begins with the weights of this run), or give the same configuration to continue "
            "it."
        )
    reached, steps = _reached(run_dir), settings.get("training.steps", 0)
    if "training.steps" in changes and steps < reached:
        raise UserError(
            f"training.steps={steps} is less than the {reached} updates that run_dir={run_dir} has made; give "
            f"{reached} or more, or evaluate an earlier checkpoint."
        )


def _reached(run_dir: Path) -> int:
    """Updates that the newest checkpoint has behind it."""
    return max(checkpoint_steps(run_dir / "checkpoints"), default=0)


def _foreign(path: Path) -> bool:
    return path.name != LOCK and not path.name.endswith(".partial")


def _has_learnt(run_dir: Path) -> bool:
    return any((run_dir / "checkpoints").glob("*")) or bool(read_metrics(run_dir / "metrics.jsonl"))


def _lock(run_dir: Path) -> TextIO:
    file = open(run_dir / LOCK, "a", opener=no_link)  # noqa: SIM115 (open as long as the run)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(f"Another process is training in run_dir={run_dir}; wait for it, or choose another.") from error
    return file


def read_typed_config(run_dir: Path, schema: type, track: str) -> Any:
    """The configuration of a run of a track as its dataclass.

    Raises:
        UserError: not a run directory, or values that do not fit.
    """
    values = read_config(run_dir)
    try:
        config = typed(schema, values, track)
        check_finite(config)
    except (UserError, OmegaConfBaseException, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        if values.get("plugins"):
            reason += (
                f"; it was trained with plugins={values['plugins']}: give --trust (from Python trust=True) to import "
                "them, or name those that you trust with --plugins"
            )
        raise UserError(f"{record_of(run_dir)} cannot be read as a configuration ({reason}).") from error
    return config


def checkpoint_path(run_dir: Path, checkpoint: str) -> Path:
    """The directory of a checkpoint of a run: "last", "best" (highest score) or a step.

    Raises:
        UserError: there is none of that name.
    """
    check_checkpoint(run_dir, checkpoint)
    folder = run_dir / "checkpoints"
    steps = checkpoint_steps(folder)
    if (run_dir / STATE).is_file() and checkpoint == "last":
        return run_dir
    if checkpoint == "last":
        return folder / f"{steps[-1]:08d}"
    if checkpoint == "best":
        best = best_checkpoint(folder)
        if best is None:
            raise UserError(f"No checkpoint of {run_dir} has a score; use --checkpoint last, or one of {steps}.")
        return best
    return folder / f"{int(checkpoint):08d}"
