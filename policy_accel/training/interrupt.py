"""Ctrl-C and SIGTERM: finish the step, save, stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interruption:
    """`requested` turns true at the first SIGINT or SIGTERM; a second one stops at once.

    Inside `abandonable()` (work that a later start repeats, such as rollouts) the first one stops that work.
    """

    def __init__(self) -> None:
        self.requested = False
        self._abandonable = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again = self.requested
        self.requested = True
        if again or self._abandonable:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def abandonable(self) -> Iterator[None]:
        """Work that may stop anywhere."""
        self._abandonable = True
        try:
            if self.requested:
                raise KeyboardInterrupt
            yield
        finally:
            self._abandonable = False

    @contextlib.contextmanager
    def watch(self) -> Iterator[Interruption]:
        """Handle the signals while the block runs (in the main thread; elsewhere nothing is changed)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
