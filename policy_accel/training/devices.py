"""Choice of the device."""

from __future__ import annotations

import ctypes
import sys

import torch

from policy_accel.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA when there is one, else the CPU.

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"training.device '{name}' is not a device; use auto, cpu, cuda or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"training.device '{name}' is not supported; use auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"training.device '{name}' is not here ({torch.cuda.device_count()} CUDA devices); use auto or cpu."
        )
    return device


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
KEEP_BYTES = 2**30


def keep_freed_memory() -> None:
    """Let glibc keep freed activations for the next step instead of handing them back to the kernel.

    Otherwise a step on the CPU maps, zeroes and unmaps its activations anew, thousands of page faults each. It costs
    at most `KEEP_BYTES` of idle memory; other C libraries are left alone.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEEP_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
