"""What the machine is and how much of it is free; nothing of this can crash."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from policy_accel.doctor.findings import NOTE, OK, Finding
from policy_accel.machine import processor
from policy_accel.memory import free_host_memory

GROUP = "Machine"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
LITTLE_MEMORY, LITTLE_DISK = 4e9, 5e9
"""Bytes below which the demo, or a run with its checkpoints and a cache of frames, may not fit."""


def host(cgroups: Path = Path("/sys/fs/cgroup")) -> list[Finding]:
    """Versions, processor, memory and disk.

    Args:
        cgroups: where the control groups are mounted, which limit a container.
    """
    ours = f"{version('policy-accel')} in {Path(__file__).parents[1]}"
    python = f"{platform.python_version()}, {sys.executable}"
    memory = free_host_memory()
    return [
        Finding(GROUP, "policy_accel", OK, ours),
        Finding(GROUP, "Python", OK, python),
        Finding(GROUP, "system", OK, platform.platform()),
        Finding(GROUP, "processor", OK, f"{processor()}, {_cores(cgroups)}"),
        _free("memory", memory, LITTLE_MEMORY, f"{memory / 1e9:.1f} GB free{_memory_limit(cgroups)}"),
        *(_disk(name, place) for name, place in _places().items()),
    ]


def _cores(cgroups: Path) -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    said = f"{usable} of {os.cpu_count()} cores"
    share, _, period = _read(cgroups / "cpu.max").partition(" ")
    if share.isdigit() and period.strip().isdigit():
        said += f", limited to the time of {int(share) / int(period):.3g}"
    threads = [f"{name}={os.environ[name]}" for name in THREADS if name in os.environ]
    return ", ".join([said, *threads])


def _memory_limit(cgroups: Path) -> str:
    limit = _read(cgroups / "memory.max").strip()
    return f", limited to {int(limit) / 1e9:.1f} GB" if limit.isdigit() else ""


def _places() -> dict[str, Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return {"this folder": Path.cwd(), "cache folder": cache}


def _disk(name: str, place: Path) -> Finding:
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    found = _free(name, free, LITTLE_DISK, f"{free / 1e9:.1f} GB free: {place}")
    if not os.access(there, os.W_OK):
        return Finding(GROUP, name, NOTE, f"{place} cannot be written to")
    return found


def _free(name: str, free: float, least: float, said: str) -> Finding:
    return Finding(GROUP, name, OK, said) if free >= least else Finding(GROUP, name, NOTE, f"{said}, which is little")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
