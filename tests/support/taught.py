"""Students for the tests of what they share with every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def student_of(track: Any, overrides: list[str], times: str, run_dir: Path) -> list[str]:
    """Overrides of a student at `times`, whose teacher is trained for an update in `run_dir`."""
    track.train(track.config([*overrides, "training.steps=1", "training.device=cpu", f"run_dir={run_dir}"]))
    return [*overrides, f"distillation.teacher={run_dir}", f"sampling.times={times}"]
