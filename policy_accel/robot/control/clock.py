"""Time as a controller sees it: that of the robot, or a simulated one."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds that only grow."""

    def now(self) -> float:
        """The time."""

    def sleep_until(self, moment: float) -> None:
        """Return at `moment`, or at once where it has passed."""


class RealClock:
    """`time.monotonic()`, which timestamps of a robot's drivers can be compared with."""

    def now(self) -> float:
        """See `Clock.now`."""
        return time.monotonic()

    def sleep_until(self, moment: float) -> None:
        """See `Clock.sleep_until`."""
        time.sleep(max(0.0, moment - time.monotonic()))


class SimulatedClock:
    """Time that passes only where it is told to."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """See `Clock.now`."""
        return self._now

    def sleep_until(self, moment: float) -> None:
        """See `Clock.sleep_until`."""
        self._now = max(self._now, moment)
