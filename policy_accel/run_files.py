"""What a run directory says, read as data: without torch, and without running anything of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policy_accel.errors import UserError
from policy_accel.files import explained
from policy_accel.parsing import from_json, is_number, read_record

CONFIG = "config.yaml"

# These may change between the parts of a run; those of the device change the last bits of what is learnt.
FREE_KEYS = (
    "training.device",
    "training.threads",
    "training.logging",
    "training.compile",
    "training.capture",
    "training.deterministic",
    "training.channels_last",
    "training.accumulate",
    "training.reduce_precision",
    "training.shard",
    "evaluation.workers",
    "evaluation.camera",
    "evaluation.overlap",
    "run_dir",
)


def read_config(run_dir: Path) -> dict[str, Any]:
    """The configuration of a run.

    Raises:
        UserError: not a run directory, a damaged file, no permission.
    """
    record = run_dir / CONFIG
    with explained(record, "read"):
        if not record.is_file():
            raise UserError(
                f"{run_dir} is not a run directory: it has no {CONFIG}; give the run_dir of a training run."
            )
    return read_record(record, "choose another run_dir")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics file; a last line that a crash cut short is left out.

    Raises:
        UserError: another line is damaged, or is no row.
    """
    with explained(path, "read"):
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = from_json(line)
            if not isinstance(row, dict) or not is_number(row.get("step", 0)):
                raise ValueError("no row with a number as its step")
            rows.append(row)
        except ValueError as error:
            if number < len(lines):
                raise UserError(f"{path}: line {number} is damaged ({error}); remove that line.") from error
    return rows
