"""Which averages of the weights a checkpoint holds, and the weights of one, stored or made afterwards."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from policy_accel.errors import UserError
from policy_accel.training.checkpoint import Checkpoint, load_checkpoint
from policy_accel.training.post_hoc_ema import synthesize
from policy_accel.training.run_directory import checkpoint_path

MAIN = "ema"
ALL = "all"


def averages(run_dir: Path, checkpoint: str = "last") -> list[str]:
    """Names of the averages of the weights that a checkpoint holds: "ema" first, then "ema_0.05" and so on.

    Raises:
        UserError: no such run or checkpoint.
    """
    files = checkpoint_path(run_dir, checkpoint).glob("ema*.safetensors")
    return sorted((file.name.removesuffix(".safetensors") for file in files), key=lambda name: (len(name) > 3, name))


def asked_averages(run_dir: Path, checkpoint: str, asked: str | None) -> list[str]:
    """The averages that `--average` asks for: the main one for None, all that the checkpoint holds for "all"."""
    return averages(run_dir, checkpoint) if asked == ALL else [asked or MAIN]


def refuse_choice(file: Path, checkpoint: str, average: str) -> None:
    """Raise UserError where a checkpoint or an average is asked of a file, which has one set of weights."""
    asked = [f"checkpoint {checkpoint}"] * (checkpoint != "last") + [f"average {average}"] * (average != MAIN)
    if asked:
        raise UserError(f"{file} has one set of weights; do not ask for {' and '.join(asked)}.")


def load_average(run_dir: Path, checkpoint: str = "last", name: str = MAIN) -> Checkpoint:
    """A checkpoint with the weights of one average, which its `tensors` hold as "ema".

    Args:
        run_dir: of a run.
        checkpoint: "last", "best" or a step.
        name: one of `averages`, or "ema_LENGTH" of another length, which is made from the checkpoints of the run
            (post-hoc EMA).

    Raises:
        UserError: no such checkpoint or average, a damaged file.
    """
    path, known = checkpoint_path(run_dir, checkpoint), averages(run_dir, checkpoint)
    if name in known:
        saved = load_checkpoint(path, (name,))
        return replace(saved, tensors={MAIN: saved.tensors[name]})
    length = _length(name)
    if length is None:
        raise UserError(f"{path} has no average '{name}' of the weights; it has {', '.join(known)}.")
    saved = load_checkpoint(path, (MAIN,))
    return replace(saved, tensors={MAIN: synthesize(run_dir, length, saved.step)})


def _length(name: str) -> float | None:
    """The length in a name such as "ema_0.07"; None for another name."""
    found = re.fullmatch(r"ema_(\d*\.?\d+)", name)
    return float(found[1]) if found else None
