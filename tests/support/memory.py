"""Memory that tests leave behind."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

RELEASE_AT = 200 * 2**20  # bytes; less is not worth the third of a second that a collection takes
STATM = Path("/proc/self/statm")

_resident = 0


def release_memory() -> None:
    """Free what only cycles hold, as the models and textures of a closed simulator, and give it back to the system."""
    gc.collect()
    if STATM.exists():
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)


def release_much_memory() -> None:
    """The same, once the process has grown by RELEASE_AT; Python does not count what simulators allocate."""
    global _resident
    if STATM.exists() and resident_memory() > _resident + RELEASE_AT:
        release_memory()
        _resident = resident_memory()


def resident_memory() -> int:
    """Bytes of this process in memory; Linux only."""
    return int(STATM.read_text().split()[1]) * 4096
