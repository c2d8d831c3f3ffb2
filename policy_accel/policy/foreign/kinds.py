"""Which files are policies of other libraries. Telling takes no torch."""

from __future__ import annotations

from pathlib import Path

from policy_accel.errors import UserError
from policy_accel.parsing import read_record

CHECKPOINT = ".ckpt"
CONFIG = "config.json"
REMEDY = "get the folder again"


def library_of(path: Path) -> str | None:
    """The library that wrote a file: a checkpoint of Diffusion Policy, or the weights in a folder of LeRobot's; None
    for any other file."""
    if path.suffix == CHECKPOINT:
        return "Diffusion Policy"
    return "LeRobot" if path.suffix == ".safetensors" and _is_lerobot(path.with_name(CONFIG)) else None


def is_foreign(path: Path) -> bool:
    """Whether a library that is not ours wrote a file."""
    return library_of(path) is not None


def _is_lerobot(record: Path) -> bool:
    if not record.is_file():
        return False
    try:
        config = read_record(record, REMEDY)
    except UserError:
        return False
    return "input_features" in config or "input_shapes" in config
