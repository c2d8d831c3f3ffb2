"""Seconds that a run spends on updates, and on nothing else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch


class TrainingClock:
    """Measures laps on the clock, less what is done `aside`.

    On CUDA the device is asked what that took it: the host only queues it, and does not wait.

    Args:
        device: that trains.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self.restart()

    def restart(self) -> None:
        """Begin a lap now."""
        self._from, self._aside = time.perf_counter(), 0.0
        self._events.clear()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the block out of the lap."""
        if self._cuda:
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            yield
            ended.record()
            self._events.append((began, ended))
        else:
            started = time.perf_counter()
            yield
            self._aside += time.perf_counter() - started

    def lap(self) -> float:
        """Seconds of the lap, of which the next begins; all that was queued must be done."""
        now = time.perf_counter()
        for began, ended in self._events:
            self._aside += began.elapsed_time(ended) / 1000
        spent = now - self._from - self._aside
        self._from, self._aside = now, 0.0
        self._events.clear()
        return spent
