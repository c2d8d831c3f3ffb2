"""Where a run is shown beside its own files: Weights & Biases, TensorBoard."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

MEDIA = {"samples/*.png": "samples", "samples/*.mp4": "", "videos/*.mp4": ""}
"""Pictures and films that scoring leaves in a run directory -> the name that all of one kind have; "" for their own."""


class Tracker(ABC):
    """Takes what a run logs, in the order of its updates."""

    @abstractmethod
    def row(self, row: dict[str, Any], newest: int) -> None:
        """Take a row of metrics.jsonl; `newest` is the largest step of all rows so far, which "step" may lie below."""

    @abstractmethod
    def media(self, files: dict[str, Path], step: int, newest: int) -> None:
        """Take pictures (.png) and films (.mp4) that belong to the score of `step`, by name."""

    @abstractmethod
    def keep(self, page: Path) -> None:
        """Take the report of the run as a file."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left, and end."""


class NewMedia:
    """The pictures and films of a run directory that came, or came anew, since the last look."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._seen = dict[Path, int]()
        self.look()

    def look(self) -> dict[str, Path]:
        """Files by name, such as "samples" and "videos/100000"; of one name the newest in the order of their paths."""
        found = {}
        for pattern, shared in MEDIA.items():
            for path in sorted(self.run_dir.glob(pattern)):
                written = path.stat().st_mtime_ns
                if self._seen.get(path) != written:
                    self._seen[path] = written
                    found[shared or str(path.relative_to(self.run_dir).with_suffix(""))] = path
        return found


def numbers(row: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a row by name; those of a dictionary in it as "measures/fid/value"."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            found.update(numbers(value, f"{prefix}{key}/"))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[prefix + key] = float(value)
    return found
