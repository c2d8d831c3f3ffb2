"""What the user sees of a sweep: a table that is drawn again on a terminal, a line for each event elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from policy_accel.progress import SECONDS_BETWEEN_LINES
from policy_accel.sweep.folder import DONE, FAILED, RUNNING, STOPPED, WAITING, Sweep
from policy_accel.sweep.standing import Standing, rate_of, seconds_left, standings

ORDER = (RUNNING, FAILED, STOPPED, WAITING, DONE)
"""What is shown first where there are more runs than lines."""
LEAST_LINES = 5


def what_it_does(run: Standing) -> str:
    """How a run stands, in words."""
    if run.job.state == DONE:
        return f"{run.updates} updates" + ("" if run.score is None else f", score {run.score:.3f}")
    if run.job.state == FAILED:
        return run.job.said
    progress = f"{run.logged.step}/{run.updates}"
    if run.job.state == RUNNING:
        if run.logged.step >= run.updates:
            return f"{progress}, scoring"
        return f"{progress}, {run.logged.rate:.1f} updates/s" if run.logged.step else "starting"
    return progress if run.logged.step else ""


def summary(runs: Sequence[Standing], now: float | None = None) -> str:
    """All runs in one line: how many of each state, updates a second as soon as one has counted, time left."""
    counts = {state: sum(run.job.state == state for run in runs) for state in (DONE, RUNNING, WAITING, STOPPED, FAILED)}
    shown = [f"{count} {state}" for state, count in counts.items() if count]
    if counts[RUNNING]:
        if rate := rate_of(runs):
            shown.append(f"{rate:.1f} updates/s")
        left = seconds_left(runs, now)
        shown.append("time left unknown" if left is None else f"{_clock(left)} left")
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''}: {', '.join(shown)}"


def table(runs: Sequence[Standing], *, lines: int | None = None) -> list[str]:
    """A line for each run; with less `lines` than runs, the rest is counted."""
    shown = list(runs)
    if lines is not None and len(shown) > lines:
        first = sorted(runs, key=lambda run: ORDER.index(run.job.state))[: lines - 1]
        shown = [run for run in runs if run in first]
    width = max(len(run.name) for run in runs)
    rows = [f"  {run.name:<{width}}  {run.job.state:<7}  {what_it_does(run)}".rstrip() for run in shown]
    return rows if len(shown) == len(runs) else [*rows, f"  and {len(runs) - len(shown)} more"]


class Screen:
    """Shows a sweep again and again.

    Args:
        sweep: that is shown.
        output: where to.
    """

    def __init__(self, sweep: Sweep, output: TextIO | None = None) -> None:
        self._sweep, self._output = sweep, output or sys.stderr
        self._runs: list[Standing] = []
        self._drawn = 0
        self._terminal = self._output.isatty()
        self._said: dict[str, str] = {}
        self._next = time.monotonic() + SECONDS_BETWEEN_LINES

    def show(self) -> None:
        """Draw how it stands now."""
        runs = self._runs = standings(self._sweep, self._runs)
        if self._terminal:
            size = shutil.get_terminal_size()
            lines = [summary(runs), *table(runs, lines=max(LEAST_LINES, size.lines - 3))]
            self._erase()
            self._write([line[: size.columns - 1] for line in lines])
            self._drawn = len(lines)
            return
        changed = [run for run in runs if self._said.get(run.name, WAITING) != run.job.state]
        self._said = {run.name: run.job.state for run in runs}
        lines = [f"sweep: {run.name} {run.job.state}: {what_it_does(run)}" for run in changed]
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SECONDS_BETWEEN_LINES
            lines.append(f"sweep: {summary(runs)}")
        self._write(lines)

    def say(self, line: str) -> None:
        """Print a line above the table."""
        self._erase()
        self._write([line])

    def close(self) -> None:
        """Take the table away; what stays is printed by the command."""
        self._erase()

    def _erase(self) -> None:
        if self._drawn:
            self._output.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0

    def _write(self, lines: Sequence[str]) -> None:
        self._output.write("".join(f"{line}\n" for line in lines))
        self._output.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
