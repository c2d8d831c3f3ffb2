"""What torchrun tells the processes that it starts, by the environment; read without torch."""

from __future__ import annotations

import os


def processes() -> int:
    """Processes of this run; 1 for one that was not started by torchrun."""
    return int(os.environ.get("WORLD_SIZE") or 1) if "RANK" in os.environ else 1


def processes_here() -> int:
    """Those of them on this machine, who share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or 1)


def rank() -> int:
    """The number of this one."""
    return int(os.environ["RANK"]) if processes() > 1 else 0


def speaks() -> bool:
    """Whether this process tells the user what they all do: the first one."""
    return rank() == 0
