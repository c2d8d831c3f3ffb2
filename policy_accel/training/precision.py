"""In which numbers a run computes: chosen for the device, or as asked for."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
MATMUL_PRECISIONS = ("auto", "highest", "high", "medium")
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Type of matrix products and convolutions under autocast."""


def precision_on(device: torch.device, choice: str) -> str:
    """One of "fp32", "bf16" and "fp16" for `choice`; auto is fp32 on the CPU.

    On CUDA auto is bf16 where the current device computes in it, else fp16.
    """
    if choice != "auto":
        return choice
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def matmul_precision_on(device: torch.device, choice: str) -> str:
    """What torch calls the precision of float32 matrix products: auto is high (TF32) on CUDA, highest on the CPU."""
    if choice != "auto":
        return choice
    return "high" if device.type == "cuda" else "highest"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Within it, matrix products and convolutions are computed in `precision`; float32 is left alone."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=HALVES[precision])
