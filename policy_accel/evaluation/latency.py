"""How long a call takes on the clock."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import numpy as np

from policy_accel.errors import UserError


class LatencyMeter:
    """Collects the wall times of calls: `with meter: policy(...)`, once a call.

    On a CUDA device the clock starts when the work queued before is done and stops when the call's own work is done:
    the device is waited for twice a call, and nowhere else. A call that raises is not counted.

    Args:
        device: where the calls run: a torch.device or its name; only CUDA needs to be waited for.
    """

    def __init__(self, device: Any = "cpu") -> None:
        self._device = str(device)
        self._seconds: list[float] = []
        self._began = 0.0

    def __enter__(self) -> LatencyMeter:
        self._synchronize()
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._synchronize()
            self._seconds.append(time.perf_counter() - self._began)

    @property
    def calls(self) -> int:
        """Number of calls counted, the first one included."""
        return len(self._seconds)

    def percentile(self, share: float) -> float:
        """Milliseconds that `share` percent of the calls stay within, by linear interpolation.

        The first call is left out when there are others: it also loads kernels and allocates memory.

        Args:
            share: in [0, 100].

        Raises:
            UserError: no call was measured, or `share` is out of its range.
        """
        if not 0 <= share <= 100:
            raise UserError(f"percentile {share}: must be between 0 and 100")
        if not self._seconds:
            raise UserError("no call was measured, so there is no latency; measure at least 1")
        return 1000 * float(np.percentile(self._seconds[1:] or self._seconds, share))

    def milliseconds(self) -> dict[str, float] | None:
        """{"median", "p95"} of the calls, as it stands in evaluation.json; None when there was no call."""
        if not self._seconds:
            return None
        return {"median": self.percentile(50), "p95": self.percentile(95)}

    def _synchronize(self) -> None:
        if self._device.startswith("cuda"):
            import torch  # workers import this package and need no torch

            torch.cuda.synchronize(self._device)
