"""How long a call takes on the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


class LatencyMeter:
    """Collects the wall times of calls: `with meter.call(): policy(...)`, once a call.

    On a CUDA device the clock starts when the work queued before is done and stops when the call's own work is done:
    the device is waited for twice a call, and nowhere else. A call that raises is not counted.

    Args:
        device: where the calls run: a torch.device or its name; only CUDA needs to be waited for.

    Attributes:
        seconds: of every call, the first one included.
    """

    def __init__(self, device: Any = "cpu") -> None:
        self._device = str(device)
        self.seconds: list[float] = []

    @contextmanager
    def call(self) -> Iterator[None]:
        """Time the block."""
        self._synchronize()
        began = time.perf_counter()
        yield
        self._synchronize()
        self.seconds.append(time.perf_counter() - began)

    def milliseconds(self) -> dict[str, float] | None:
        """{"median", "p95"} of the calls, as it stands in evaluation.json; None when there was no call.

        The first call is left out when there are others: it also loads kernels and allocates memory.
        """
        if not self.seconds:
            return None
        median, p95 = np.percentile(self.seconds[1:] or self.seconds, [50, 95])
        return {"median": 1000 * float(median), "p95": 1000 * float(p95)}

    def _synchronize(self) -> None:
        if self._device.startswith("cuda"):
            import torch  # workers import this package and need no torch

            torch.cuda.synchronize(self._device)
