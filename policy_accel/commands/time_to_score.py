"""`policy-accel benchmark time-to-score`."""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from policy_accel.commands.output import suggest
from policy_accel.files import replace_json, replace_text
from policy_accel.machine import processor
from policy_accel.time_to_score.instrument import check_plan, measure
from policy_accel.time_to_score.plan import read_plan
from policy_accel.time_to_score.table import text
from policy_accel.training.devices import available_cores


def run_time_to_score(options: argparse.Namespace) -> int:
    """Measure what a plan asks for, or go on with it; result.json and result.txt in its folder."""
    plan = read_plan(options.plan)
    if options.dry_run:
        print("\n".join(arm.name for arm in check_plan(plan, options.config_dir)))
        return 0
    words = [str(options.plan), *([] if options.config_dir is None else ["--config-dir", str(options.config_dir)])]
    command = shlex.join(["policy-accel", "benchmark", "time-to-score", *words])
    try:
        result = measure(plan, options.config_dir, _say)
    except KeyboardInterrupt:
        _say(f"Stopped. To go on: {command}")
        raise
    folder = Path(plan.folder)
    replace_json(folder / "result.json", {"command": command, "date": date.today().isoformat(), **_place(), **result})
    table = text(result)
    replace_text(folder / "result.txt", table + "\n")
    print(table)
    _say(f"All numbers: {folder / 'result.json'}")
    suggest("see it on a page", ["report", folder / "runs", "--time-to-score", folder / "result.json"])
    return 0


def _place() -> dict[str, Any]:
    """Where it was measured."""
    cuda = torch.cuda.is_available()
    return {
        "hardware": {
            "cpu": processor(),
            "cores": available_cores(),
            **({"gpu": torch.cuda.get_device_name()} if cuda else {}),
        },
        "versions": {
            "policy-accel": version("policy-accel"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
