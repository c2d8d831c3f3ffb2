"""What this device does at best, measured: matrix products and copies."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from policy_accel.training.precision import HALVES

MATMUL_SIZES = {"cuda": 8192, "cpu": 1536}
COPY_BYTES = {"cuda": 2**30, "cpu": 2**27}
REPEATS = {"cuda": 20, "cpu": 1}
TRIES = 8


def wait_for(device: torch.device) -> None:
    """Wait until a CUDA device has done what was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call of `work`: the best of some tries, each of several calls on a CUDA device."""
    repeats = REPEATS[device.type]
    found = []
    for _ in range(TRIES):
        wait_for(device)
        began = time.perf_counter()
        for _ in range(repeats):
            work()
        wait_for(device)
        found.append((time.perf_counter() - began) / repeats)
    return min(found)


def matmul_rate(device: torch.device, precision: str) -> float:
    """FLOP/s of the best of some large square matrix products of random numbers.

    precision: "bf16", "fp16" or "fp32"; the last in TF32 where `torch.set_float32_matmul_precision` allows it.
    """
    size = MATMUL_SIZES[device.type]
    dtype = HALVES.get(precision, torch.float32)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2.0 * size**3 / best_seconds(lambda: a @ b, device)


def copy_rate(device: torch.device) -> float:
    """Bytes/s of the best of some large copies on the device; a byte read and a byte written are two."""
    numbers = COPY_BYTES[device.type] // 4
    source, target = torch.ones(numbers, device=device), torch.zeros(numbers, device=device)
    return 2.0 * 4 * numbers / best_seconds(lambda: target.copy_(source), device)
