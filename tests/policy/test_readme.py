"""The example of the robot policies' page runs as it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import policy_accel.policy
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.track import ROBOT

PAGE = Path(policy_accel.policy.__file__).with_name("README.md").read_text()


def test_the_example_drives_an_environment(
    tiny_config: Callable[..., RobotConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ROBOT.train(tiny_config("task.observation=[keypoint,'state[:2]']", f"run_dir={tmp_path / 'runs' / 'demo'}"))
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert len(example.splitlines()) <= 16
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example.replace("max_episode_steps=300", "max_episode_steps=20"), "example", "exec"), names)
    printed = capsys.readouterr().out
    assert re.fullmatch(r"[\d.]+ \{'median': [\d.]+, 'p95': [\d.]+\}\n", printed)


def test_every_task_stands_on_the_page() -> None:
    named = set(re.findall(r"`(\w+)`", PAGE))
    for task in ROBOT.choices()["task"]:
        base = re.sub(r"(_image|_abs)+$", "", task)
        suffix = task[len(base) :]
        whole = {task} <= named or (base in named and (not suffix or suffix in named))
        assert whole or (task.startswith("pointmaze_") and task.removeprefix("pointmaze") in named), task
