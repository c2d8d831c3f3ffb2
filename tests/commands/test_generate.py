from __future__ import annotations

import os
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy_accel.cli import main
from policy_accel.commands.arguments import EXPERTS, WITH_CAMERAS
from policy_accel.commands.generate import TRAINING_TASKS
from policy_accel.configuration import SOURCES, choices
from policy_accel.data import Episodes, read_episodes
from policy_accel.data.images import read_images
from policy_accel.training.devices import available_cores
from policy_accel.written_formats import SUFFIXES


def test_shapes_are_drawn_and_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "made.npz"
    command = ["data", "generate", "shapes", "--images", "40", "--seed", "3", "--size", "16", "--output", str(path)]
    assert main(command) == 0
    assert capsys.readouterr().out == f"40 training and 10 test images of 16 x 16: {path}\n"
    train, test = (read_images(path, split) for split in ("train", "test"))
    assert train is not None
    assert test is not None
    assert (train.shape, len(train), len(test)) == ((3, 16, 16), 40, 10)
    assert main(["data", "inspect", str(path)]) == 0
    assert "train: 40 images of 3 x 16 x 16 (uint8)" in capsys.readouterr().out
    assert main(command) == 2
    assert "made.npz: exists already and is not overwritten" in capsys.readouterr().err


def test_default_name_of_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "generate", "shapes", "--images", "3", "--seed", "7", "--size", "16"]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["shapes_3_7.npz"]


@pytest.mark.parametrize("to", list(SUFFIXES))
def test_an_expert_is_recorded_in_every_format(to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["data", "generate", "pointmaze_umaze", "--episodes", "2", "--seed", "5", "--workers", "1", "--to", to]
    assert main(command) == 0
    (made,) = tmp_path.iterdir()
    assert made.name == f"pointmaze_umaze_2_5{SUFFIXES[to]}"
    episodes = read_episodes(made)
    assert len(episodes) == 2
    assert set(episodes.arrays) >= {"observation", "desired_goal", "action"}
    assert np.isfinite(episodes.arrays["action"]).all()


def test_every_expert_has_a_task_to_train_on() -> None:
    for name, (module, told) in EXPERTS.items():
        parameters = signature(import_module(f"policy_accel.envs.{module}").generate).parameters
        assert set(told) <= set(parameters)
        assert TRAINING_TASKS.get(name, name) in choices(SOURCES["robot"])["task"]


@pytest.mark.parametrize("task", WITH_CAMERAS)
def test_a_size_of_frames_without_cameras_is_refused(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "generate", task, "--episodes", "1", "--image-size", "128"]) == 2
    assert "--image-size=128 means nothing without cameras; name some" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_workers_are_the_cores_that_the_process_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of the machine, as a container or a batch job shares it."""
    from policy_accel.envs import maze_expert

    seen: list[int] = []
    play = maze_expert.generate

    def generate(*arguments: Any, workers: int, **more: Any) -> Episodes:
        seen.append(workers)
        return play(*arguments, workers=1, **more)

    monkeypatch.setattr(maze_expert, "generate", generate)
    monkeypatch.setattr(os, "cpu_count", lambda: 4096)
    path = tmp_path / "x.npz"
    assert main(["data", "generate", "pointmaze_umaze", "--episodes", "1", "--to", "npz", "--output", str(path)]) == 0
    assert seen == [available_cores()]
