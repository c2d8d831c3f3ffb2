"""The tutorials are followed as they stand, with tiny networks and few updates."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.following import IMAGES, ROBOTS, few_shapes, follow, not_printed, write_pusht
from support.pages import page
from support.pretrained import write_resnet18

from policy_accel.images.sets import load_split

TINY = [*ROBOTS["train"], "model.down_dims=[8,16]", "task.max_steps=8", "evaluation.videos=1"]
"""What a training of the tutorials on robots is given besides."""
SHORT = {"train": TINY, "demo": TINY, "evaluate": [*ROBOTS["evaluate"], "--videos", "0"]}
CAMERAS = [*TINY, "training.batch_size=4"]


@pytest.fixture
def followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """Follows a tutorial in an empty folder; every line that it shows as printed has to be printed, but for numbers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(name: str, small: Mapping[str, Sequence[str]], found: str = "nothing", **how: Any) -> list[str]:
        """`found` begins lines that say what a long enough training found."""
        commands = follow(page(f"tutorials/{name}"), small, **how)
        said = capsys.readouterr()
        missing = [
            line for line in not_printed(page(f"tutorials/{name}"), said.out + said.err) if not line.startswith(found)
        ]
        assert missing == [], said.out + said.err
        return commands

    return run


def test_push_t(followed: Callable[..., list[str]], tmp_path: Path) -> None:
    write_pusht(tmp_path / "data" / "pusht.zip")
    human = [*TINY, "task.val_ratio=0"]
    commands = followed("push_t", {**SHORT, "train": human}, not_run=["policy-accel data fetch pusht"])
    assert len(commands) == 7
    assert json.loads((tmp_path / "runs/demo/evaluation.json").read_text())["step"] == 3
    named = ("videos", "learning_curve.png", "evaluation.json", "evaluations.jsonl", "config.yaml", "metrics.jsonl")
    assert all((tmp_path / "runs/demo" / file).exists() for file in (*named, "checkpoints/last"))
    assert (tmp_path / "runs/human/evaluation.json").exists()


def test_your_data(followed: Callable[..., list[str]], tmp_path: Path) -> None:
    mlp = [word for word in TINY if not word.startswith(("model.", "task.", "evaluation.videos"))]
    small = {"train": mlp, "evaluate": SHORT["evaluate"], "sweep": [*mlp, "task.max_steps=2", "launcher.slots=2"]}
    short = {"range(10_000, 10_200)": "range(10_000, 10_020)", "seed=1,2,3": "seed=1,2"}
    followed("your_data", small, replaced=short, found="immiscible")
    assert len(list(tmp_path.glob("runs/sweeps/touch-method-seed/*/evaluation.json"))) == 4
    assert (tmp_path / "runs/unscored/open_loop.json").exists()
    assert (tmp_path / "touch.png").exists()


def test_cameras(followed: Callable[..., list[str]], tmp_path: Path) -> None:
    write_pusht(tmp_path / "data" / "pusht.zip")
    write_resnet18(tmp_path / "resnet18-f37072fd.pth")
    small = {
        "train": CAMERAS,
        "train task=custom": [*(word for word in CAMERAS if not word.startswith("task.")), "encoder.crop=40"],
        "evaluate": SHORT["evaluate"],
    }
    few = {"task.episodes=[0:20]": "task.episodes=[0:2]", "(120, 96, 128, 3)": "(120, 48, 64, 3)"}
    followed("cameras", small, replaced=few, not_run=["policy-accel data fetch pusht"])
    assert len(list(tmp_path.glob("runs/*/checkpoints/last"))) == 6


def test_planning(followed: Callable[..., list[str]], tmp_path: Path) -> None:
    plans = [*(word for word in TINY if not word.startswith("training.batch")), "training.batch_size=4"]
    plans = ["model.down_dims=[8,16,16]" if word.startswith("model.") else word for word in plans]
    generated = {"data generate": ["--episodes", "4", "--workers", "1"]}
    followed("planning", {**SHORT, **generated, "train": plans}, replaced={"steps < 600": "steps < 3"})
    assert json.loads((tmp_path / "runs/maze/evaluation.json").read_text())["step"] == 2


def test_on_your_robot(followed: Callable[..., list[str]], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    generated = {"data generate": ["--episodes", "2", "--workers", "1"]}
    short = {"8000": str(port), "RATE, SECONDS = 10, 20": "RATE, SECONDS = 20, 0.5"}
    compared = {"evaluate runs/arm --data": ["--windows", "8"]}
    followed("on_your_robot", {**SHORT, **generated, **compared}, replaced=short)
    assert (tmp_path / "runs/arm/open_loop.json").exists()
    assert json.loads((tmp_path / "policy.onnx.evaluation/evaluation.json").read_text())["network_evaluations"] == 4


def test_images(followed: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy_accel.images.track.load_split", few_shapes(load_split))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fid = "policy-accel evaluate runs/pictures --samples 50000 --inception weights-inception-2015-12-05-6726825d.pth"
    small = {**IMAGES, "demo images": IMAGES["train"]}
    followed("images", small, not_run=[fid], replaced={"range(150)": "range(30)"})
    assert (tmp_path / "first.png").exists()
    assert {"stars", "guided", "drawn"} <= {path.name for path in tmp_path.iterdir()}
