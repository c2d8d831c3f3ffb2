"""How far the runs of a sweep are, from the files that they write; whoever runs them, and from wherever one looks."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from policy_accel.parsing import from_json
from policy_accel.sweep.folder import DONE, FAILED, RUNNING, Job, Sweep

TAIL_BYTES = 8192


@dataclass(frozen=True)
class Logged:
    """The newest of a run's metrics: updates made, and how many a second; 0 before the first row."""

    step: int = 0
    rate: float = 0.0


@dataclass(frozen=True)
class Standing:
    """How a run stands, and how far it is."""

    name: str
    job: Job
    logged: Logged
    updates: int
    score: float | None


def logged(run_dir: Path) -> Logged:
    """Read the end of a run's metrics.jsonl."""
    try:
        with open(run_dir / "metrics.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return Logged()
    for line in reversed(lines):
        with suppress(ValueError, KeyError, TypeError):  # a validation loss or a score, a line that is cut
            row = from_json(line)
            return Logged(int(row["step"]), float(row["steps_per_second"]))
    return Logged()


def standings(sweep: Sweep, before: Sequence[Standing] = ()) -> list[Standing]:
    """Of all runs, in the order of the sweep.

    Args:
        sweep: whose runs they are.
        before: those of an earlier look; the files of runs that were done are not read again.
    """
    done = {run.name: run for run in before if run.job.state == DONE}
    return [done.get(name) or _standing(sweep, name) for name in sweep.runs]


def _standing(sweep: Sweep, name: str) -> Standing:
    job, run_dir = sweep.job(name), sweep.run_dir(name)  # the job first: what a run that is done wrote stays so
    return Standing(name, job, logged(run_dir), sweep.runs[name].updates, _score(run_dir))


def _score(run_dir: Path) -> float | None:
    try:
        return float(from_json((run_dir / "evaluation.json").read_bytes())["score"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def rate_of(runs: Sequence[Standing]) -> float:
    """Updates a second of all runs that train now."""
    return sum(run.logged.rate for run in runs if run.job.state == RUNNING and run.logged.step < run.updates)


def seconds_left(runs: Sequence[Standing], now: float | None = None) -> float | None:
    """Until all are done, if those that are left take as long for an update as all took so far, start and score
    included, and as many run side by side as do now; None while nothing tells.

    Args:
        runs: of the sweep.
        now: seconds since 1970.
    """
    now = time.time() if now is None else now
    tried = [run for run in runs if run.job.started and run.job.state in (RUNNING, DONE)]
    busy = sum((now if run.job.state == RUNNING else run.job.ended) - run.job.started for run in tried)
    made = sum(max(0, run.logged.step - run.job.first_step) for run in tried)
    left = sum(max(0, run.updates - run.logged.step) for run in runs if run.job.state not in (DONE, FAILED))
    running = sum(run.job.state == RUNNING for run in runs)
    if not made or not running or not left:  # the last ones are being scored
        return None
    return left * busy / made / running
