"""On what, and with which versions, something was made."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def processor() -> str:
    """The name of the CPU."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


@cache
def package_version(package: str) -> str:
    """Of an installed package; "not installed" of another."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
