"""The record beside a picture of a run: what made it, and of which run."""

from __future__ import annotations

import json
import shlex
import sys
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

from style import FOLDER

from policy_accel.files import replace_json
from policy_accel.run_files import read_config

sys.path.append(str(FOLDER.parents[1] / "benchmarks"))
from results import commit, hardware, without_folders


def write(name: str, run_dir: Path, figures: dict[str, Any], picture: Path | None = None) -> None:
    """Write docs/figures/<name>.json: command, commit, date, hardware, the run, `figures` and the picture's sha256."""
    config = read_config(run_dir)
    trained = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in trained if "loss" in row][-1]
    run = {
        "label": config["label"],
        "data": config["task"]["name"],
        "training_seed": config["seed"],
        "updates": last["step"],
        "batch_size": config["training"]["batch_size"],
        "threads": config["training"]["threads"],
        "sampler": config["sampling"]["sampler"],
        "sampling_steps": config["sampling"]["steps"],
    }
    made = {} if picture is None else {"sha256": sha256(picture.read_bytes()).hexdigest()}
    arguments = [without_folders(argument) for argument in sys.argv[1:]]
    circumstances = {
        "command": shlex.join(["python", f"docs/figures/{Path(sys.argv[0]).name}", *arguments]),
        "commit": commit(),
        "date": date.today().isoformat(),
        "hardware": hardware(),
    }
    replace_json(FOLDER / f"{name}.json", {**circumstances, "run": run, **figures, **made})


def read(name: str) -> Any:
    """docs/figures/<name>.json."""
    return json.loads((FOLDER / f"{name}.json").read_text())
