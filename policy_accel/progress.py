"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
import sys
import time
from typing import ClassVar

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15.0
LINE = re.compile(r"(?P<what>.+): (?P<done>\d+)/\d+ \w+s, (?P<rate>[\d.]+)/s, ")
"""A plain line of `Progress`, for whoever reads the log of another process."""


class Progress:
    """Progress over `total` units, starting at `done`.

    Args:
        what: the work, for example "train".
        total: units of the whole work.
        done: units made before.
        unit: name of a unit.
    """

    silent: ClassVar[bool] = False
    """Whether nothing is shown: in a process beside another one, which shows its own."""

    def __init__(self, what: str, total: int, done: int = 0, unit: str = "step") -> None:
        self.what, self.total, self.done, self.unit = what, total, done, unit
        self._started = self._shown = time.monotonic()
        self._first = done
        self._note = ""
        self._bar = (
            tqdm(total=total, initial=done, desc=what, unit=unit, dynamic_ncols=True)
            if sys.stderr.isatty() and not self.silent
            else None
        )

    def advance(self, units: int = 1, note: str = "") -> None:
        """Count `units` more, with a short note such as the loss."""
        self.to(self.done + units, note)

    def to(self, done: int, note: str = "") -> None:
        """Count up to `done`."""
        ended = self.done == self.total
        self._note = note or self._note
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self.done)
        self.done = done
        if self.silent:
            return
        now = time.monotonic()
        if self._bar is None and (now - self._shown >= SECONDS_BETWEEN_LINES or (done == self.total and not ended)):
            self._shown = now
            rate = (done - self._first) / max(now - self._started, 1e-9)
            left = (self.total - done) / rate if rate > 0 else 0.0
            print(
                f"{self.what}: {done}/{self.total} {self.unit}s, {rate:.1f}/s, {_clock(left)} left"
                + (f", {self._note}" if self._note else ""),
                file=sys.stderr,
                flush=True,
            )

    def say(self, line: str) -> None:
        """Print a line without tearing the bar."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        elif not self.silent:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
