"""A tiny plan on the toy, whose runs are trained in this process: the sweep has tests of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.readers import write_episodes
from policy_accel.envs.two_modes import generate
from policy_accel.policy.track import ROBOT
from policy_accel.sweep.folder import DONE, Job, Sweep, open_folder
from policy_accel.sweep.prepare import Order, sweep_of
from policy_accel.time_to_score import instrument
from policy_accel.time_to_score.plan import Plan, read_plan

TINY: dict[str, Any] = {
    "tasks": {
        "two_modes": {
            "settings": {"recipe": "two_modes", "task.data": "toy.npz", "task.val_ratio": 0.2},
            "targets": [0.2, 0.52],
        }
    },
    "methods": ["baseline", "kl"],
    "seeds": [1, 2],
    "settings": {
        "model.hidden_dims": [32],
        "training.batch_size": 32,
        "training.device": "cpu",
        "training.threads": 1,
        "training.optimizer.lr": 0.01,
        "training.optimizer.warmup_steps": 0,
    },
    "checkpoints": {"first": 2, "last": 60, "number": 3},
    "budgets": [60],
    "few_steps": [1, 2],
    "scoring": {"batch": 20, "most": 100, "episodes": 30, "workers": 0, "confidence": 0.8},
    "surrogates": {"windows": 8, "noises": 3},
    "folder": "measured",
}


def trained_here(order: Order, configs: dict[str, Any]) -> tuple[Sweep, bool]:
    """`carry_out` without processes."""
    sweep, lock = open_folder(order.folder, lambda old: sweep_of(order, configs, old, 1))
    lock.close()
    for name, run in sweep.runs.items():
        if sweep.job(name).state != DONE:
            ROBOT.train(ROBOT.config([*run.overrides, f"run_dir={sweep.run_dir(name)}"]))
            sweep.note(name, Job(DONE))
    return sweep, False


def furnished(folder: Path) -> Path:
    """A folder with demonstrations."""
    write_episodes(folder / "toy.npz", MemoryReader(generate(60, 0)), "npz")
    return folder


def read(place: Path, /, **changed: Any) -> Plan:
    """The tiny plan, with changes."""
    path = place / "plan.yaml"
    path.write_text(yaml.safe_dump(TINY | changed, sort_keys=False))
    return read_plan(path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with demonstrations."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(instrument, "carry_out", trained_here)
    return furnished(tmp_path)


@pytest.fixture
def plan(place: Path) -> Callable[..., Plan]:
    """The tiny plan, with changes."""
    return lambda **changed: read(place, **changed)


@pytest.fixture(scope="package")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The result of the tiny plan, as it is written, and the folder that it was measured in."""
    folder = furnished(tmp_path_factory.mktemp("tiny"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(instrument, "carry_out", trained_here)
        result = instrument.measure(read(folder), None, lambda line: None)
    return json.loads(json.dumps(result)), folder
