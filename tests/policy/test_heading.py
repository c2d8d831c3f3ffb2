"""What a robot run says before its first update, against what is in its data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from support.data import write_zarr

from policy_accel.data import Episodes, open_episodes
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.track import ROBOT


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """Episodes of 10, 3, 7, 8, 30 and 5 steps; windows of 16 steps with 1 + 7 repeated need 8 of them."""
    lengths = np.array([10, 3, 7, 8, 30, 5])
    generator = np.random.default_rng(0)
    arrays = {"state": generator.normal(size=(63, 5)), "action": generator.normal(size=(63, 2))}
    arrays["img"] = generator.integers(0, 256, (63, 44, 60, 3)).astype(np.uint8)
    write_zarr(tmp_path / "uneven.zarr", Episodes(arrays, lengths.cumsum()))
    return tmp_path / "uneven.zarr"


def test_episodes_and_windows_are_counted(tiny_config: Callable[..., RobotConfig], uneven: Path) -> None:
    parts = ROBOT.build(tiny_config(f"task.data={uneven}", "task.val_ratio=0")).heading
    # Windows of an episode: its steps, 1 + 7 that are repeated, less the 15 that the first window needs more.
    assert parts["data"] == (
        f"{uneven}: 6 episodes, 63 steps; 3 train in {3 + 1 + 23} windows of 16 steps, none validates"
    )
    assert parts["left out"] == "3 episodes shorter than the 8 steps a window needs: 1 (3), 2 (7), 5 (5)"


def test_skipped_episodes_are_said(tiny_config: Callable[..., RobotConfig], uneven: Path, tmp_path: Path) -> None:
    with open_episodes(uneven) as reader:
        values = reader.read(4)
    arrays = {key: np.concatenate([rows, rows]) for key, rows in values.items() if key != "img"}
    arrays["action"][3] = np.nan
    np.savez(tmp_path / "x.npz", episode_ends=[30, 60], **arrays)
    with pytest.warns(UserWarning, match="episode 0 is left out"):
        task = ROBOT.build(
            tiny_config(f"task.data={tmp_path}/x.npz", "task.skip_bad_episodes=true", "task.val_ratio=0")
        )
    assert "1 episode, 30 steps; 1 train in 23 windows" in task.heading["data"]
    assert task.heading["left out"].startswith("episode 0 is left out: data/action holds NaN at step 3")


def test_the_validation_split_is_said(tiny_config: Callable[..., RobotConfig], demonstrations: Path) -> None:
    task = ROBOT.build(tiny_config("task.val_ratio=0.4"))
    assert task.validation is not None
    assert (
        f"4 train in {len(task.train.indices)} windows of 16 steps, 2 validate in {task.validation_samples}"
        in (task.heading["data"])
    )
    assert task.heading["left out"] == ""


def test_what_the_network_sees_and_how_it_is_scored(tiny_config: Callable[..., RobotConfig], uneven: Path) -> None:
    parts = ROBOT.build(
        tiny_config(
            f"task.data={uneven}",
            "task.observation=['state[:3]']",
            "task.images=[img]",
            "encoder.crop=40",
            "encoder.resnet.width=16",
            "method=immiscible_knn",
            "diffusion.target=v",
        )
    ).heading
    seen = "img (44 x 60 px resized to 44 x 46, of which 40 x 40 at a time)"
    assert parts["sees"] == f"2 steps of state[:3] (3 numbers) and {seen}"
    assert parts["predicts"] == "16 steps of action (2 numbers), of which 8 are executed"
    assert parts["method"].endswith("immiscible_knn: ddpm with target v, noise nearest")
    assert parts["score"] == "none: evaluation.episodes=0"


def test_the_score_is_said(tiny_config: Callable[..., RobotConfig]) -> None:
    settings = ("evaluation.episodes=3", "training.evaluate_every=2", "sampling.steps=1", "task.max_steps=40")
    scored = ROBOT.build(tiny_config(*settings)).heading
    assert scored["score"] == (
        "policy_accel/PushT-v0, 3 episodes of at most 40 steps from seed 100,000 every 2 updates and after the last "
        "update; sampled by ddim in 1 step"
    )
    assert (
        "episodes of its own number of steps"
        in ROBOT.build(tiny_config(*settings, "task.max_steps=null")).heading["score"]
    )
    alone = ROBOT.build(tiny_config("task.environment=null", "evaluation.episodes=3")).heading
    assert alone["score"].startswith("none: task.environment=null; after the last update its actions are compared")


@pytest.mark.parametrize(
    ("registered", "says"),
    [(40, "at most 40 steps (that it is registered with; "), (None, "at most 300 steps (none is registered; ")],
)
def test_without_max_steps_an_episode_ends_where_the_environment_is_registered_to(
    tiny_config: Callable[..., RobotConfig], registered: int | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gymnasium.spec("policy_accel/PushT-v0"), "max_episode_steps", registered)
    task = ROBOT.build(tiny_config("evaluation.episodes=3", "task.max_steps=null"), scored=True)
    assert task.evaluator is not None
    task.close()
    assert task.evaluator.pool.spec.max_steps == (registered or 300)
    assert f"3 episodes of {says}task.max_steps sets others) from seed" in task.heading["score"]
