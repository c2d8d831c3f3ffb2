"""Choice of the device."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

from policy_accel.errors import UserError
from policy_accel.launched import processes_here
from policy_accel.machine import processor
from policy_accel.training.precision import matmul_precision_on

MOST_THREADS = 1024
"""More than there are cores in any machine that this runs on."""


def choose_device(name: str, field: str = "training.device") -> torch.device:
    """The device called `name`; "auto" is CUDA when there is one, else the CPU.

    A CUDA device without a number is that of LOCAL_RANK, which torchrun sets, else the current one.

    Raises:
        UserError: no such device here; `field` is where the name stood.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"{field} '{name}' is not a device; use auto, cpu, cuda or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"{field} '{name}' is not supported; use auto, cpu, cuda or cuda:N.")
    if device.type == "cpu":
        return device
    index, count = device.index, torch.cuda.device_count()
    if index is not None and processes_here() > 1:
        raise UserError(
            f"{field} '{name}' would put the {processes_here()} processes of this machine on one GPU; use auto or cuda."
        )
    if index is None and count:  # `torch.cuda.set_device` needs a number
        index = int(os.environ.get("LOCAL_RANK") or torch.cuda.current_device())
    if index is None or index >= count:
        raise UserError(f"{field} '{name}' is not here ({count} CUDA devices); use auto or cpu.")
    return torch.device("cuda", index)


def device_name(device: torch.device) -> str:
    """The name of the card, or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def check_threads(threads: int) -> None:
    """Raise UserError unless torch can be given so many threads; far too many end the process without a word."""
    if not 0 <= threads <= MOST_THREADS:
        raise UserError(
            f"training.threads={threads} must be at least 0 and at most {MOST_THREADS}; this machine has "
            f"{available_cores()} cores."
        )


def use_device(device: torch.device, *, threads: int, matmul_precision: str, deterministic: bool = False) -> None:
    """Set what torch keeps for the whole process: CPU threads (0 leaves them), TF32, memory on the CPU, and how kernels
    are chosen on CUDA.

    cuDNN's convolutions have a TF32 switch of their own, on by default; here they follow `matmul_precision`. cuDNN
    measures its kernels for each shape and takes the fastest, unless `deterministic` wants the same ones each time.
    """
    if threads:
        check_threads(threads)
        torch.set_num_threads(threads)
    matmul_precision = matmul_precision_on(device, matmul_precision)
    torch.set_float32_matmul_precision(matmul_precision)
    torch.backends.cudnn.allow_tf32 = matmul_precision != "highest"
    if device.type == "cpu":
        keep_freed_memory()
    elif device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = not deterministic
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first product
            torch.use_deterministic_algorithms(True, warn_only=True)


def available_cores() -> int:
    """CPU cores that this process may use: its share of them, where torchrun started several on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes_here())


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
