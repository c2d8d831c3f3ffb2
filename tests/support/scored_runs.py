"""Run directories with made-up scores, as `policy-accel train` leaves them, without any training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

SAMPLING = {"sampler": "ddim", "steps": 8, "spacing": "trailing", "clip_sample": 1.0}


def config_of(method: str = "baseline", seed: int = 1, **settings: Any) -> dict[str, Any]:
    """The configuration of a run; `settings` are dotted keys with two underscores for a dot."""
    config: dict[str, Any] = {
        "track": "robot",
        "task": {"name": "pusht_state", "data": "data/pusht.zip", "environment": "policy_accel/PushT-v0"},
        "acceleration": {"noise": {"name": "independent"}},
        "training": {"steps": 1000, "threads": 1, "optimizer": {"lr": 0.001}},
        "sampling": dict(SAMPLING),
        "evaluation": {"episodes": 3, "noise_seed": 0},
        "label": "small",
        "method": method,
        "seed": seed,
        "run_dir": "somewhere",
    }
    for name, value in settings.items():
        *sections, key = name.split("__")
        node = config
        for section in sections:
            node = node.setdefault(section, {})
        node[key] = value
    return config


def evaluation_of(scores: Sequence[float], start_seed: int = 100, **changed: Any) -> dict[str, Any]:
    """The record of an evaluation of a policy: an episode for each score."""
    return {
        "step": 1000,
        "score": float(np.mean(scores)),
        "episodes": [
            {"seed": start_seed + place, "score": float(score), "success": bool(score >= 1), "length": 300}
            for place, score in enumerate(scores)
        ],
        "failed_seeds": [],
        "sampler": "ddim",
        "sampling_steps": 8,
        "sampling_spacing": "trailing",
        "sampling_clip_sample": 1.0,
        "network_evaluations": 8,
        "max_steps": 300,
        "start_seed": start_seed,
        "noise_seed": 0,
        **changed,
    }


def write_run(run_dir: Path, config: dict[str, Any], evaluation: dict[str, Any] | None = None) -> Path:
    """A run directory; without an evaluation, of a run that has none yet."""
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    if evaluation is not None:
        (run_dir / "evaluation.json").write_text(json.dumps(evaluation))
        (run_dir / "evaluations.jsonl").write_text(json.dumps(evaluation) + "\n")
    return run_dir


def write_arms(folder: Path, arms: dict[str, np.ndarray]) -> list[Path]:
    """A run for each row of the scores [S, E] of each method, with training seeds 1, 2, ..."""
    return [
        write_run(folder / f"{method}-seed{seed}", config_of(method, seed), evaluation_of(row))
        for method, table in arms.items()
        for seed, row in enumerate(table, 1)
    ]


def write_sweep(folder: Path, arms: dict[str, np.ndarray], waiting: Sequence[str] = ()) -> Path:
    """The same as the folder of a sweep, with runs that have not begun."""
    runs = [run.name for run in write_arms(folder, arms)]
    record = {"runs": {name: {"overrides": [], "updates": 1000} for name in [*runs, *waiting]}, "threads": 1}
    (folder / "sweep.json").write_text(json.dumps(record))
    return folder
