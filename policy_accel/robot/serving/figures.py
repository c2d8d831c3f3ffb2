"""What a server counts and times, as plain numbers and as Prometheus reads them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LAST = 1000
"""Requests that the percentiles are of."""
COUNTED = ("requests_total", "answers_total", "refusals_total", "failures_total", "batches_total", "batched_total")
MEASURED = ("largest_batch", "seconds_p50", "seconds_p99", "predict_seconds_p50", "predict_seconds_p99")


@dataclass
class Figures:
    """Of one policy since the server started.

    Attributes:
        requests: messages of clients that were read, and what became of them: `answers`, `refusals` (the message was
            wrong) and `failures` (the server was).
        batches: predictions that were made, of `batched` requests together, at most `largest` at once.
        waits: seconds from the arrival of a request for actions to its answer, of the last ones.
        predictions: seconds of the last predictions.
    """

    requests: int = 0
    answers: int = 0
    refusals: int = 0
    failures: int = 0
    batches: int = 0
    batched: int = 0
    largest: int = 0
    waits: deque[float] = field(default_factory=lambda: deque(maxlen=LAST))
    predictions: deque[float] = field(default_factory=lambda: deque(maxlen=LAST))

    def batch(self, size: int, seconds: float) -> None:
        """Count a prediction."""
        self.batches += 1
        self.batched += size
        self.largest = max(self.largest, size)
        self.predictions.append(seconds)

    def record(self) -> dict[str, float | None]:
        """Plain numbers by name; None for a percentile of nothing."""
        counts = (self.requests, self.answers, self.refusals, self.failures, self.batches, self.batched)
        percentiles = [*_percentiles(self.waits), *_percentiles(self.predictions)]
        return dict(zip((*COUNTED, *MEASURED), (*counts, self.largest, *percentiles), strict=True))


def _percentiles(seconds: deque[float]) -> list[float | None]:
    taken = list(seconds)  # another thread adds to it
    return [float(value) for value in np.percentile(taken, [50, 99])] if taken else [None, None]


def server_record(policies: Mapping[str, Figures], clients: int, began: float) -> dict[str, Any]:
    """The figures of a server that began at the time.monotonic() `began`."""
    return {
        "uptime_seconds": time.monotonic() - began,
        "clients": clients,
        "policies": {name: figures.record() for name, figures in policies.items()},
    }


def prometheus(record: Mapping[str, Any]) -> str:
    """A `server_record` in Prometheus' text form; names of policies need no quoting."""
    lines = []
    for name in ("uptime_seconds", "clients"):
        lines += [f"# TYPE policy_accel_{name} gauge", f"policy_accel_{name} {record[name]}"]
    for name in (*COUNTED, *MEASURED):
        lines.append(f"# TYPE policy_accel_{name} {'counter' if name in COUNTED else 'gauge'}")
        for policy, values in record["policies"].items():
            value = "NaN" if values[name] is None else values[name]
            lines.append(f'policy_accel_{name}{{policy="{policy}"}} {value}')
    return "\n".join(lines) + "\n"
