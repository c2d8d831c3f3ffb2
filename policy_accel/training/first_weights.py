"""The weights that a run begins with where they are not random: those of another run, for fine-tuning."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from policy_accel.errors import UserError, typed_as
from policy_accel.run_files import CONFIG, begun_with, checkpoint_steps, read_config
from policy_accel.training.checkpoint import Checkpoint, DamagedError, load_checkpoint
from policy_accel.training.config import RunConfig
from policy_accel.training.run_directory import changed, checkpoint_path, in_words

AVERAGE = "ema"
NETWORK = ("model", "policy", "encoder", "diffusion")
"""Settings that weights may have been trained with otherwise, without being of another size."""
SHOWN = 3


def first_checkpoint(config: RunConfig, from_file: Callable[[Path], Checkpoint] | None = None) -> Checkpoint | None:
    """The checkpoint whose averaged weights and normalisers a run begins with; None for random ones.

    A run that goes on has both in its own checkpoints, and a student in its teacher's, wherever `init_from` is now.
    `from_file` reads a model that is one file, as an exported one; None where the track has none.

    Raises:
        UserError: init_from is no run and no checkpoint; a damaged file.
    """
    if config.init_from is None:
        return None
    own = own_checkpoint(Path(config.run_dir), (AVERAGE,))
    if own is not None:
        return own
    teacher = config.distillation
    if teacher.teacher:
        return load_checkpoint(checkpoint_path(Path(teacher.teacher), teacher.checkpoint), (AVERAGE,))
    path = source_of(config.init_from)
    if not path.is_file():
        return load_checkpoint(path, (AVERAGE,))
    if from_file is None:
        raise UserError(f"init_from={config.init_from} is a file; give a run directory, or the folder of a checkpoint.")
    return from_file(path)


def own_checkpoint(run_dir: Path, names: tuple[str, ...] = ()) -> Checkpoint | None:
    """The newest checkpoint of a run that can be read, with these of its tensors; None where there is none."""
    own = run_dir / "checkpoints"
    for step in reversed(checkpoint_steps(own)):
        try:
            return load_checkpoint(own / f"{step:08d}", names)
        except DamagedError:  # which the run sets aside
            continue
    return None


def source_of(init_from: str) -> Path:
    """What `init_from` means: the folder of a checkpoint, that or the last one of a run; or the file of a model, that
    or the one in a folder that was saved to be shared.

    Raises:
        UserError: it is neither.
    """
    path = begun_with(init_from)
    return path if path.is_file() else checkpoint_path(path, "last")


def begin_with(model: nn.Module, checkpoint: Checkpoint, config: RunConfig, record: dict[str, Any]) -> None:
    """Give `model` the averaged weights of a checkpoint, and what it keeps of its data; `record` has the settings of
    the run.

    Raises:
        UserError: they are of another network.
    """
    theirs, own = checkpoint.tensors[AVERAGE], model.state_dict()
    try:
        model.load_state_dict(dict(theirs))
    except RuntimeError as error:
        differing = [
            f"{name} is {list(theirs[name].shape)} there and {list(own[name].shape)} here"
            for name in own
            if name in theirs and theirs[name].shape != own[name].shape
        ]
        differing += [f"it has no {name}" for name in own if name not in theirs]
        differing += [f"it has {name}, which is not here" for name in theirs if name not in own]
        more = f", and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise UserError(
            f"init_from={config.init_from} does not fit this network ({differing[0]}{more}"
            f"{_otherwise(checkpoint, record)}); choose the model, policy, encoder and fields of the task that it was "
            f"trained with, or another checkpoint.{_as_there(checkpoint, record)}"
        ) from error


def told(checkpoint: Checkpoint, config: RunConfig, record: dict[str, Any], kept: str = "") -> str:
    """Where the weights of a run are from, for its heading; `record` has the settings of the run, `kept` more on it."""
    averaged = f"with the averaged weights of {config.init_from} after {checkpoint.step:,} updates"
    return f"{averaged}{kept}{_otherwise(checkpoint, record)}"


def _otherwise(checkpoint: Checkpoint, record: dict[str, Any]) -> str:
    """What of the network is set otherwise than where the weights are from, as far as their run is there."""
    lines = in_words(_changes(checkpoint, record))
    lines.sort(key=lambda line: ".name:" not in line)  # choices first
    more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return f"; there {'; '.join(lines[:SHOWN])}{more} here" if lines else ""


def _as_there(checkpoint: Checkpoint, record: dict[str, Any]) -> str:
    """The settings that make the same network, as they are typed; none where it is another choice of a group."""
    changes = _changes(checkpoint, record)
    if not changes or any(key.endswith(".name") for key in changes):
        return ""
    return f" Set as there: {shlex.join(f'{key}={typed_as(before)}' for key, (before, _) in changes.items())}"


def _changes(checkpoint: Checkpoint, record: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    path, run_dir = checkpoint.path, checkpoint.path.resolve().parent.parent
    source = path if path.is_file() else run_dir
    before = read_config(source) if path.is_file() or (run_dir / CONFIG).is_file() else {}
    shared = [name for name in NETWORK if name in before]
    return changed({name: before[name] for name in shared}, {name: record.get(name) for name in shared})
