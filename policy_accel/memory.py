"""How much memory a device has left, and handing freed memory back."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from policy_accel.errors import UserError

if TYPE_CHECKING:
    import torch

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
UNKNOWN = 4 * 2**30
"""Bytes that are taken to be free where the system tells nothing."""

SMALL = 16 * 2**20
"""Bytes that are taken without a look at what is free, which costs a few system calls."""

# A group's limit, its use, and in memory.stat the cache of files, which counts as use but is given up on demand
# (Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst).
_V2 = ("memory.max", "memory.current", ("inactive_file", "active_file"))
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))


def free_memory(device: torch.device) -> int:
    """Bytes that `device` has left: of the GPU, or of the machine."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return free_host_memory()


def free_host_memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Bytes that this process can still take without swapping and without being killed.

    The smaller of what Linux calls available, which is free memory and the cache that it would give up, and of what
    the control groups of the process (v2 or v1), as those of a container or a batch job, leave of their limits. Other
    systems: free memory, or else half of all.

    Args:
        proc: where Linux tells about the machine and this process.
        cgroups: where the control groups are mounted.
    """
    found = [*_available(proc / "meminfo"), *_left_of_limits(proc / "self/cgroup", cgroups)]
    return max(0, min(found)) if found else _by_system_call()


def check_fits(size: int, what: str, *, stored: int | None = None) -> None:
    """Refuse what would take more memory than is free, before it is allocated.

    For sizes that a file declares of itself: a damaged or hostile one may declare anything.

    Args:
        size: bytes to be taken.
        what: the file and what in it takes them, for the message, as "set.zip: a.png in it".
        stored: bytes from which they are unpacked; beyond some MB, more than a hundred times as many are refused.

    Raises:
        UserError: fewer bytes are free, or nothing that anyone packs becomes so large.
    """
    if size <= SMALL:
        return
    if stored is not None and size > SMALL + 100 * stored:
        raise UserError(
            f"{what} has {stored:,} bytes and unpacks to {size:,}, more than a hundred times as many; it is damaged or "
            "a trap: get it again from where it came."
        )
    if size > (free := free_host_memory()):
        raise UserError(
            f"{what} takes {size / 1e9:,.1f} GB of memory and {free / 1e9:,.1f} GB are free; give a smaller set, or "
            "free some memory."
        )


def release_freed_memory() -> None:
    """Let glibc hand back what was freed inside its heaps, which it keeps otherwise; other C libraries are left alone.

    For large arrays that came from another process: once some were freed, glibc puts the like into its heaps, of which
    it gives back the end alone.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _available(meminfo: Path) -> Iterator[int]:
    kilobytes = _numbers(meminfo).get("MemAvailable:")
    if kilobytes is not None:
        yield kilobytes * 1024


def _left_of_limits(memberships: Path, cgroups: Path) -> Iterator[int]:
    """What each group that the process is in, and each one around it, leaves of its limit."""
    for line in _text(memberships).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            root, names = cgroups, _V2
        elif "memory" in controllers.split(","):
            root, names = cgroups / "memory", _V1
        else:
            continue
        # In a container the path may be the host's, of which only the root is mounted.
        own = root / PurePosixPath(path.lstrip("/"))
        for group in (own, *(parent for parent in own.parents if parent.is_relative_to(root))):
            limit, use = _text(group / names[0]).strip(), _text(group / names[1]).strip()
            if limit.isdigit() and use.isdigit():
                cache = _numbers(group / "memory.stat")
                yield int(limit) - int(use) + sum(cache.get(name, 0) for name in names[2])


def _by_system_call() -> int:
    for pages, share in (("SC_AVPHYS_PAGES", 1), ("SC_PHYS_PAGES", 2)):
        if pages in getattr(os, "sysconf_names", ()):
            count = os.sysconf(pages)
            if count > 0:
                return count * os.sysconf("SC_PAGE_SIZE") // share
    return UNKNOWN


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _numbers(path: Path) -> dict[str, int]:
    """The lines "name number ..." of a file."""
    rows = [line.split() for line in _text(path).splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}
