"""What torch can do here: its build, its devices, and why it sees no GPU."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from policy_accel.doctor.findings import CORE, NOTE, OK, Finding


def torch_build() -> Iterator[Finding]:
    """The build, a product of matrices, and each GPU."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
    product = torch.ones(64, 64) @ torch.ones(64, 64)
    if product[0, 0].item() != 64.0:
        raise RuntimeError(f"a product of matrices is wrong: {product[0, 0].item()} and not 64")
    said = f"{torch.__version__}, built for {_built_for(torch)}, {torch.get_num_threads()} CPU threads"
    yield Finding(CORE, "torch", OK, said)
    if not there:
        yield no_gpu(torch, [" ".join(str(one.message).split()) for one in caught])
    for index in range(torch.cuda.device_count() if there else 0):
        facts = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        torch.ones(8, device=f"cuda:{index}").sum().item()
        precision = "bf16" if (facts.major, facts.minor) >= (8, 0) else "no bf16"
        capability = f"capability {facts.major}.{facts.minor}"
        yield Finding(
            CORE,
            f"cuda:{index}",
            OK,
            f"{facts.name}, {capability}, {precision}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free",
        )


def _built_for(torch: Any) -> str:
    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}"
    return f"ROCm {torch.version.hip}" if torch.version.hip else "the CPU"


def no_gpu(torch: Any, warned: list[str], devices: Path = Path("/dev")) -> Finding:
    """Why torch has no GPU: there is none, it is hidden, or torch or its driver does not fit."""
    nvidia = any(devices.glob("nvidia[0-9]*")) or (devices / "dxg").exists() or shutil.which("nvidia-smi") is not None
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not nvidia:
        return Finding(CORE, "GPU", OK, "none; everything runs on the CPU")
    if not torch.version.cuda:
        base = torch.__version__.partition("+")[0]
        remedy = f"install torch for CUDA: pip install --force-reinstall torch=={base} (not a +cpu build)"
        return Finding(CORE, "GPU", NOTE, "an NVIDIA GPU is here, and this torch is built without CUDA", remedy)
    if hidden is not None and hidden.strip() in ("", "-1"):
        said = f"an NVIDIA GPU is here, and CUDA_VISIBLE_DEVICES={hidden!r} hides it"
        return Finding(CORE, "GPU", NOTE, said, "unset CUDA_VISIBLE_DEVICES")
    said = (
        f"an NVIDIA GPU is here, and torch (CUDA {torch.version.cuda}) cannot use it: {' '.join(warned) or 'no reason'}"
    )
    remedy = "see that `nvidia-smi` works; update the driver, or install a torch that is built for an older CUDA"
    return Finding(CORE, "GPU", NOTE, said, remedy)
