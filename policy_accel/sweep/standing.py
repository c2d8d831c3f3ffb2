"""How far the runs of a sweep are, from the files that they write; whoever runs them, and from wherever one looks."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from policy_accel.parsing import from_json
from policy_accel.progress import LINE
from policy_accel.sweep.folder import DONE, FAILED, RUNNING, Job, Sweep

TAIL_BYTES = 8192
TRAINING = "train"
"""What a run's progress calls its updates."""
COMMAND = "$ policy-accel "
"""How the line begins that an attempt at a run puts into its log first."""


@dataclass(frozen=True)
class Logged:
    """The newest that a run wrote of itself: updates made, and how many a second; 0 before the first."""

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
    for line in reversed(_last_lines(run_dir / "metrics.jsonl")):
        with suppress(ValueError, KeyError, TypeError):  # a validation loss or a score, a line that is cut
            row = from_json(line)
            return Logged(int(row["step"]), float(row["steps_per_second"]))
    return Logged()


def printed(log: Path) -> Logged:
    """Read the end of what the latest attempt at a run printed, which comes more often than a row of its metrics."""
    for line in reversed(_last_lines(log)):
        found = LINE.match(line)
        if found and found["what"] == TRAINING:
            return Logged(int(found["done"]), float(found["rate"]))
        if line.startswith(COMMAND):
            break
    return Logged()


def _last_lines(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


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
    newest = max(logged(run_dir), printed(sweep.log(name)), key=lambda found: found.step)
    return Standing(name, job, newest, sweep.runs[name].updates, _score(run_dir))


def _score(run_dir: Path) -> float | None:
    try:
        return float(from_json((run_dir / "evaluation.json").read_bytes())["score"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def rate_of(runs: Sequence[Standing]) -> float:
    """Updates a second of all runs that train now."""
    return sum(run.logged.rate for run in runs if run.job.state == RUNNING and run.logged.step < run.updates)


def seconds_left(runs: Sequence[Standing], now: float | None = None) -> float | None:
    """Until all are done, if those that are left take as long for an update as those that are done took, start and
    score included, and as many run side by side as do now. Before the first is done it is the time for the updates
    alone. None while nothing tells.

    Args:
        runs: of the sweep.
        now: seconds since 1970.
    """
    now = time.time() if now is None else now
    running = [run for run in runs if run.job.state == RUNNING]
    whole, rates = _seconds_an_update(runs), [run.logged.rate for run in running if run.logged.rate]
    if not running or (whole is None and not rates):
        return None
    each = len(rates) / sum(rates) if whole is None else whole
    left = 0.0
    for run in runs:
        if run.job.state in (DONE, FAILED):
            continue
        updates = each * max(0, run.updates - run.logged.step)
        expected = 0.0 if whole is None else whole * (run.updates - run.job.first_step) - (now - run.job.started)
        left += max(updates, expected) if run.job.state == RUNNING else updates
    return left / len(running) or None  # the last ones are being scored, for longer than those before


def _seconds_an_update(runs: Sequence[Standing]) -> float | None:
    """Of those that are done, start and score included; None before the first."""
    done = [run for run in runs if run.job.state == DONE]
    made = sum(max(0, run.updates - run.job.first_step) for run in done)
    return sum(run.job.ended - run.job.started for run in done) / made if made else None
