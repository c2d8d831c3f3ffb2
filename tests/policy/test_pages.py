"""The pages on tasks, cameras and driving: their examples run as they stand there, and no task is missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.pretrained import write_resnet18

import policy_accel
from policy_accel.cli import main
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.track import ROBOT

HOW_TO = Path(policy_accel.__file__).parents[1] / "docs" / "how_to"


def test_the_example_drives_an_environment(
    tiny_config: Callable[..., RobotConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ROBOT.train(tiny_config("task.observation=[keypoint,'state[:2]']", f"run_dir={tmp_path / 'runs' / 'demo'}"))
    section = (HOW_TO / "robot.md").read_text().split("\n## Without a clock\n", 1)[1].split("\n## ", 1)[0]
    (example,) = re.findall(r"^```python\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)
    assert len(example.splitlines()) <= 16
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example.replace("max_episode_steps=300", "max_episode_steps=20"), "example", "exec"), names)
    printed = capsys.readouterr().out
    assert re.fullmatch(r"[\d.]+ \{'median': [\d.]+, 'p95': [\d.]+\}\n", printed)


CAMERAS = (HOW_TO / "cameras.md").read_text().replace("\\\n", " ")
TRAIN = re.findall(r"^    policy-accel (train .*encoder\.(?:weights|augmentation).*)$", CAMERAS, flags=re.MULTILINE)
SMALL = [
    "model=unet",
    "model.down_dims=[8,16]",
    "model.kernel_size=3",
    "model.step_embedding_dim=8",
    "training.steps=1",
]
SMALL += ["training.batch_size=2", "training.device=cpu", "training.threads=1", "training.validate_every=0"]
SMALL += ["evaluation.episodes=0"]


@pytest.mark.parametrize("number", range(len(TRAIN)))
def test_the_commands_of_the_cameras_train(
    number: int, demonstrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(TRAIN) == 4
    words = TRAIN[number].replace("task.data=PATH", f"task.data={demonstrations}").split()
    monkeypatch.chdir(tmp_path)
    write_resnet18(tmp_path / "resnet18-f37072fd.pth")
    crop = [] if "encoder.crop=null" in words else ["encoder.crop=36"]
    assert main([*words, *SMALL, *crop, "run_dir=run"]) == 0
    policy = ROBOT.load(tmp_path / "run").policy
    assert policy.images == {"img": (44, 44, 3)}


def test_every_task_stands_on_the_page() -> None:
    named = set(re.findall(r"`(\w+)`", (HOW_TO / "robot_tasks.md").read_text()))
    for task in ROBOT.choices()["task"]:
        base = re.sub(r"(_image|_abs)+$", "", task)
        suffix = task[len(base) :]
        whole = {task} <= named or (base in named and (not suffix or suffix in named))
        assert whole or (task.startswith("pointmaze_") and task.removeprefix("pointmaze") in named), task
