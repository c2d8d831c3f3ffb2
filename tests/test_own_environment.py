"""An environment of a user's own module that draws nothing: it is scored without films, and is left alone otherwise."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.user_modules import forgotten_afterwards

from policy_accel import plugins
from policy_accel.cli import main

ENVIRONMENT = """
import gymnasium
import numpy as np


class Still(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-2, 2, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.5, False, False, {}


gymnasium.register("Still-v0", Still)
"""
WHY = "Still-v0 has no render mode rgb_array"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the module and data for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_still.py").write_text(ENVIRONMENT)
    places = np.random.default_rng(0).uniform(-1, 1, (160, 2)).astype(np.float32)
    np.savez("still.npz", state=places, action=-places, episode_ends=np.arange(20, 161, 20))
    with forgotten_afterwards():
        yield tmp_path


def train() -> None:
    task = ["task=custom", "task.data=still.npz", "task.observation=[state]", "task.action=action"]
    where = ["task.environment=Still-v0", "task.environment_module=own_still", "task.max_steps=8"]
    small = ["recipe=small", "training.steps=1", "training.batch_size=8", "training.device=cpu"]
    scored = ["evaluation.episodes=2", "evaluation.workers=0", "sampling.steps=1", "run_dir=run"]
    assert main(["train", *task, *where, *small, *scored]) == 0


@pytest.mark.filterwarnings("error")
def test_it_is_scored_without_films(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train()
    said = capfd.readouterr()
    heading, _, updates = said.err.partition("train: 1/1 steps")
    assert f"  not filmed  {WHY}\n" in heading
    assert "WARN" not in said.err
    assert "film" not in updates + said.out
    assert "Rollout videos" not in said.out
    assert json.loads((folder / "run/evaluation.json").read_text())["score"] == 0.5
    assert main(["evaluate", "run", "--trust"]) == 0
    assert capfd.readouterr().out.startswith(f"not filmed: {WHY}\nScore 0.500")
    assert main(["evaluate", "run", "--trust", "--videos", "3"]) == 2
    assert f"--videos 3 films nothing, since {WHY}; give --videos 0." in capfd.readouterr().err
    assert main(["evaluate", "run", "--trust", "--camera", "top"]) == 2
    assert f"--camera top films nothing, since {WHY}; drop it." in capfd.readouterr().err
    assert main(["evaluate", "run", "--trust", "--videos", "0"]) == 0
    assert "not filmed" not in capfd.readouterr().out


def test_its_module_is_left_alone_where_no_episode_is_played(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train()
    plugins._imported.clear()
    sys.modules.pop("own_still")
    (folder / "own_still.py").write_text("open('imported', 'w')")
    assert main(["evaluate", "run"]) == 2
    assert main(["evaluate", "run", "--data", "still.npz", "--data-episodes", "0"]) == 0
    assert main(["evaluate", "run", "--data", "still.npz", "--data-episodes", "0", "--trust"]) == 0
    assert "Compared with demonstrations" in capsys.readouterr().out
    assert not (folder / "imported").exists()
