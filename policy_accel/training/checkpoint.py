"""Checkpoints: safetensors and JSON in a directory of their own, complete or absent.

    checkpoints/<step>/{model,ema,optimizer}.safetensors  [ema_<length>.safetensors]  state.json  [evaluation.json]
    checkpoints/last -> <newest step>

`state.json` holds the SHA-256 of the other files, so that a damaged checkpoint is noticed when it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.files import explained, new_path, replace_json, sync
from policy_accel.parsing import from_json, is_number
from policy_accel.run_files import checkpoint_steps

FORMAT = 1


@dataclass
class CheckpointConfig:
    """Which checkpoints are written and kept."""

    every: int = 1000
    """Updates between checkpoints; 0 writes one at the end only."""
    keep_last: int = 2
    """Newest checkpoints kept, at least 2, so that one is left when the newest is damaged."""
    keep_best: int = 5
    """Checkpoints with the highest score kept beside them."""
    keep_every: int = 0
    """Every checkpoint whose step is a multiple of this is kept too; 0 for none. Averages of other lengths are made
    from such a row of them."""
    at: list[int] = field(default_factory=list)
    """A checkpoint is written after each of these numbers of updates too, and kept."""


class DamagedError(UserError):
    """A checkpoint that is not whole."""


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds: step, tensors by file name, JSON state."""

    step: int
    path: Path
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_checkpoint(folder: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> Path:
    """Write `folder`/<step> whole: to a temporary name, fsynced, renamed; then point `folder`/last at it.

    Raises:
        UserError: no space, no permission, a checkpoint of that step is there; what was there before is untouched.
    """
    final = folder / f"{step:08d}"
    with new_path(final) as temporary:
        temporary.mkdir()
        digests = {}
        for name, values in tensors.items():
            file = temporary / f"{name}.safetensors"
            file.write_bytes(safetensors.torch.save({key: value.contiguous() for key, value in values.items()}))
            digests[file.name] = _digest(file)
        record = {"format": FORMAT, "step": step, "files": digests, **state}
        (temporary / "state.json").write_text(json.dumps(record, indent=1) + "\n")
    link = folder / ".last.partial"
    with explained(link):
        link.unlink(missing_ok=True)
        link.symlink_to(final.name)
        os.replace(link, folder / "last")
        sync(folder)
    return final


def load_checkpoint(path: Path, names: tuple[str, ...] | None = None) -> Checkpoint:
    """Read one checkpoint directory and check its files against their digests; `names` chooses some of them,
    () none but the state.

    Raises:
        UserError: a file is missing or damaged, or the format is another one.
    """
    remedy = "remove that checkpoint and use an earlier one"
    try:
        with explained(path, "read"):
            text = (path / "state.json").read_text() if (path / "state.json").is_file() else ""
        state = from_json(text)
        if state["format"] != FORMAT:
            raise UserError(f"{path} has checkpoint format {state['format']!r}, this version reads {FORMAT}.")
        digests = state["files"]
        step = int(state["step"])
        chosen = [file.removesuffix(".safetensors") for file in digests] if names is None else names
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DamagedError(
            f"{path / 'state.json'} is missing or damaged ({type(error).__name__}); {remedy}."
        ) from error
    tensors = {}
    for name in chosen:
        file = path / f"{name}.safetensors"
        if not file.is_file():
            raise DamagedError(f"{file} is missing; {remedy}.")
        with explained(file, "read"):
            whole = _digest(file) == digests.get(file.name)
        if not whole:
            raise DamagedError(f"{file} is damaged: its SHA-256 is not the one in state.json; {remedy}.")
        try:
            tensors[name] = safetensors.torch.load_file(file)
        except (safetensors.SafetensorError, ValueError) as error:
            raise DamagedError(f"{file} holds no tensors ({error}); {remedy}.") from error
    return Checkpoint(step, path, tensors, state)


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Say that a checkpoint is of another run when what it holds does not fit the one that the block puts it into.

    Raises:
        DamagedError: in place of what the block raises.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DamagedError(
            f"{path} is not a checkpoint of this run and version ({reason[:200]}); remove it and use an earlier one."
        ) from error


def load_newest(folder: Path, report: Any = print) -> Checkpoint | None:
    """The newest whole checkpoint in `folder`, or None; each damaged one is set aside and named through `report`.

    What a killed run left half-written is removed.

    Raises:
        UserError: there are checkpoints, and none is whole.
    """
    for partial in folder.glob(".*.partial"):
        shutil.rmtree(partial, ignore_errors=True)
    steps = checkpoint_steps(folder)
    for step in reversed(steps):
        path = folder / f"{step:08d}"
        try:
            return load_checkpoint(path)
        except DamagedError as error:
            aside = path.with_name(f"{path.name}.damaged")
            report(
                f"Checkpoint {path} cannot be used ({error}) It is kept as {aside.name}; going back to the one before."
            )
            with explained(aside):
                shutil.rmtree(aside, ignore_errors=True)
                os.replace(path, aside)
    if any(folder.glob("*.damaged")):
        raise UserError(f"None of the checkpoints in {folder} is whole; choose another run_dir to start again.")
    return None


def record_evaluation(path: Path, result: dict[str, Any]) -> None:
    """Put the evaluation of a checkpoint beside it."""
    replace_json(path / "evaluation.json", result)


def evaluation_of(path: Path) -> dict[str, Any] | None:
    """The evaluation recorded beside a checkpoint, or None."""
    try:
        result = from_json((path / "evaluation.json").read_bytes())
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) else None


def _scored_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints with a recorded score, by score; the later one of equal ones last. Those scored by
    another measure than the newest cannot be compared with it and are left out."""
    scores, measures = {}, {}
    for step in checkpoint_steps(folder):
        result = evaluation_of(folder / f"{step:08d}")
        if result and is_number(result.get("score")):
            scores[step], measures[step] = float(result["score"]), result.get("score_from")
    alike = [step for step in scores if measures[step] in (None, measures[max(scores)])]
    return sorted(alike, key=lambda step: (scores[step], step))


def best_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest recorded score (the later one on a tie), or None when none has a score."""
    scored = _scored_steps(folder)
    return folder / f"{scored[-1]:08d}" if scored else None


def prune_checkpoints(folder: Path, config: CheckpointConfig, unscored: Iterable[int] = ()) -> None:
    """Remove all checkpoints but the newest `keep_last`, the `keep_best` with the highest scores, those of every
    `keep_every` updates and of the steps `at`, and the `unscored` ones, whose score is to come.
    """
    steps = checkpoint_steps(folder)
    keep = {
        *unscored,
        *config.at,
        *steps[-config.keep_last :],
        *(_scored_steps(folder)[-config.keep_best :] if config.keep_best else []),
    }
    if config.keep_every:
        keep.update(step for step in steps if step % config.keep_every == 0)
    for step in steps:
        if step not in keep:
            shutil.rmtree(folder / f"{step:08d}")
