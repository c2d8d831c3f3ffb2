"""How long a policy takes to predict on a robot: one observation at a time, ready for it."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import torch

from policy_accel.benchmark.calls import LEAST_LATENCY_CALLS
from policy_accel.errors import UserError
from policy_accel.models.encoders.observation import STATE
from policy_accel.policy.controller import Policy

PERCENTILES = (50, 95, 99)


def benchmark_latency(policy: Policy, *, calls: int, seconds: float) -> dict[str, Any]:
    """Time predictions of a policy, each from an observation as an environment gives it to the actions on the host.

    Args:
        policy: warmed up, or not.
        calls: predictions, at most.
        seconds: for all of them, about; at least `LEAST_LATENCY_CALLS` are made.

    Returns:
        p50, p95, p99 and the largest time in "milliseconds"; "control_rate", the highest in Hz at which no action is
        late when a chunk is predicted between two steps, which p99 has to fit between, and "asynchronous_rate", when it
        is predicted while the chunk before is executed; "threads"; "load" of the machine in the last minute.

    Raises:
        UserError: too few calls, or no time.
    """
    if calls < LEAST_LATENCY_CALLS or not seconds > 0:
        raise UserError(f"--calls {calls} must be at least {LEAST_LATENCY_CALLS}, and --seconds {seconds} positive.")
    run = policy.run
    generator = np.random.default_rng(0)
    taken: dict[str, Any] = {STATE: generator.standard_normal(run.policy.input_dim)}
    for name, shape in run.policy.images.items():
        taken[name] = generator.integers(0, 256, shape, dtype=np.uint8)
    took: list[float] = []
    began = time.perf_counter()
    while len(took) < LEAST_LATENCY_CALLS or (len(took) < calls and time.perf_counter() - began < seconds):
        policy.reset(len(took))
        start = time.perf_counter()
        policy.act_on(taken)
        took.append(time.perf_counter() - start)
    p50, p95, p99 = (1000 * float(value) for value in np.percentile(took, PERCENTILES))
    steps = run.config.policy.n_action_steps
    return {
        "calls": len(took),
        "milliseconds": {"p50": p50, "p95": p95, "p99": p99, "largest": 1000 * max(took)},
        "control_rate": 1000 / p99,
        "asynchronous_rate": 1000 * steps / p99,
        "n_action_steps": steps,
        "sampler": run.sampler.config.sampler,
        "network_evaluations": run.sampler.network_evaluations(),
        "device": str(policy.device),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
    }
