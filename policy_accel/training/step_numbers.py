"""Numbers that change from update to update, for work that was captured."""

from __future__ import annotations

import torch
from torch import Tensor

SLOTS = 8
"""Updates that the host may be ahead of the device before it waits."""


class StepNumbers:
    """A few numbers in one buffer on a CUDA device, written by the host without waiting.

    A CUDA graph keeps the numbers of the host that it was captured with, and reads memory anew at every replay.

    Args:
        count: how many.
        device: where they are read.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self._buffer = torch.zeros(count, dtype=torch.float64, device=device)
        self._rows = [torch.zeros(count, dtype=torch.float64, pin_memory=True) for _ in range(SLOTS)]
        self._sent: list[torch.cuda.Event | None] = [None] * SLOTS
        self._turn = 0

    def write(self, *numbers: float) -> None:
        """Give the numbers of the work that is queued next."""
        row, sent = self._rows[self._turn], self._sent[self._turn]
        if sent is not None and not sent.query():
            sent.synchronize()  # the device is `SLOTS` updates behind
        row.copy_(torch.tensor(numbers, dtype=torch.float64))
        self._buffer.copy_(row, non_blocking=True)
        sent = torch.cuda.Event()
        sent.record()
        self._sent[self._turn] = sent
        self._turn = (self._turn + 1) % SLOTS

    def __getitem__(self, place: int) -> Tensor:
        """One of them: a 0-dim float64 tensor on the device, the same memory at every call."""
        return self._buffer[place]
