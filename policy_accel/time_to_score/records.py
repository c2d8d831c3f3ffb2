"""What was measured of checkpoints, a JSON line each, kept as it comes: nothing is scored twice or rewritten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from policy_accel.errors import UserError
from policy_accel.files import append_text, explained, replace_text
from policy_accel.run_files import read_metrics

FILE = "scores.jsonl"
Episode = dict[str, Any]


class Scored(NamedTuple):
    """What episodes belong to: a run, a checkpoint, and how it was sampled; `steps` None for the run's own sampler."""

    run: str
    step: int
    steps: int | None
    noise_seed: int


class Records:
    """The measurements of a folder.

    A row has "run" and "step", and either "episodes" with "sampling_steps" (null: the run's own), "noise_seed",
    "network_evaluations" and "seconds", or "surrogates" with "windows", "noises" and "noise_seed". "weights" is the
    SHA-256 of the averaged weights.

    Args:
        folder: where the file lies, or shall lie.

    Raises:
        UserError: a damaged file; a last line that a crash cut short is left out.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.seconds = 0.0
        self._episodes: dict[Scored, dict[int, Episode]] = {}
        self._evaluations: dict[Scored, int] = {}
        self._surrogates: dict[tuple[str, int, int, int, int], dict[str, float]] = {}
        self._weights: dict[tuple[str, int], str] = {}
        rows = read_metrics(self.path)
        with explained(self.path, "read"):
            whole = not self.path.exists() or self.path.read_bytes()[-1:] in (b"", b"\n")
        if not whole:
            replace_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        for row in rows:
            try:
                self._take(row)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{self.path} has a row that is damaged ({error!r}); choose another folder.") from error

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row."""
        append_text(self.path, json.dumps(row) + "\n")
        self._take(row)

    def _take(self, row: dict[str, Any]) -> None:
        place = str(row["run"]), int(row["step"])
        self._weights[place] = str(row["weights"])
        if "surrogates" in row:
            how = int(row["windows"]), int(row["noises"]), int(row["noise_seed"])
            self._surrogates[(*place, *how)] = dict(row["surrogates"])
            return
        key = Scored(*place, row["sampling_steps"], int(row["noise_seed"]))
        self._evaluations[key] = int(row["network_evaluations"])
        self.seconds += float(row["seconds"])
        self._episodes.setdefault(key, {}).update({int(episode["seed"]): episode for episode in row["episodes"]})

    def episodes(self, key: Scored) -> dict[int, Episode]:
        """The episodes of a checkpoint, by their seed."""
        return self._episodes.get(key, {})

    def network_evaluations(self, key: Scored) -> int:
        """Of the network for a chunk, where there are episodes."""
        return self._evaluations[key]

    def surrogates(self, run: str, step: int, *, windows: int, noises: int, noise_seed: int) -> dict[str, float] | None:
        """What stands for the score of a checkpoint; None where it was not measured."""
        return self._surrogates.get((run, step, windows, noises, noise_seed))

    def check_weights(self, run: str, step: int, weights: str) -> None:
        """Raise UserError when what is recorded of a checkpoint belongs to other weights."""
        if self._weights.get((run, step), weights) != weights:
            raise UserError(
                f"{self.path} has scores of another checkpoint {step} of run {run} than the one that is there: the run "
                "was trained anew; choose another folder."
            )
