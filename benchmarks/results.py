"""Writing a result: one small JSON with the command, commit and hardware that made it."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from policy_accel.files import replace_json

RESULTS = Path(__file__).resolve().parent / "results"


def hardware() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    found: dict[str, Any] = {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def without_folders(argument: str) -> str:
    """The argument with the folders of an absolute path taken off, in `key=/path` too."""
    key, separator, value = argument.rpartition("=")
    return f"{key}{separator}{Path(value).name}" if value.startswith(("/", "..")) else argument


def commit() -> str:
    """Of this checkout."""
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RESULTS.parent)
    return asked.stdout.strip()


def write_result(path: Path, figures: dict[str, Any]) -> None:
    """Write `figures` with their circumstances to `path`."""
    arguments = [without_folders(argument) for argument in sys.argv[1:]]
    replace_json(
        path,
        {
            "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *arguments]),
            "commit": commit(),
            "date": date.today().isoformat(),
            "hardware": hardware(),
            **figures,
        },
    )
    print(f"written to {path}")
