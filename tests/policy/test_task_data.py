"""Which episodes, keys and columns a task takes from its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy_accel.errors import UserError
from policy_accel.policy.demonstrations import TaskConfig, load_demonstrations
from policy_accel.policy.policy import PolicyConfig
from policy_accel.policy.task_data import action_fields, check_task_data, read_task_episodes

POLICY = PolicyConfig(horizon=8, n_obs_steps=2, n_action_steps=4)
STEPS = np.arange(60, dtype=np.float32)
NUMBERS = np.repeat(np.arange(6), 10)  # of the episode of each step
ARRAYS = {
    "state": np.stack([STEPS, NUMBERS], 1),
    "arm": np.stack([STEPS, -STEPS], 1),
    "hand": np.stack([STEPS, 2 * STEPS, 3 * STEPS, 4 * STEPS], 1),
    "img": np.broadcast_to(NUMBERS[:, None, None, None], (60, 3, 8, 8)).astype(np.uint8),
    "depth": np.zeros((60, 8, 8), np.uint16),
}


def task(folder: Path, changes: dict[str, Any] | None = None, **settings: Any) -> TaskConfig:
    np.savez(folder / "x.npz", **{**ARRAYS, **(changes or {})}, episode_ends=np.arange(10, 61, 10))
    given = {"observation": ["state"], "action": "arm", "val_ratio": 0.0, **settings}
    return TaskConfig(data=str(folder / "x.npz"), **given)


def test_numbers_and_pictures_are_of_the_same_episodes(tmp_path: Path) -> None:
    """Also of those that are left over when bad ones are skipped, be it for their pictures alone."""
    arm, img = ARRAYS["arm"].copy(), ARRAYS["img"].astype(np.float32)
    arm[33], img[52] = np.nan, 0.5
    config = task(tmp_path, {"arm": arm, "img": img}, images=["img"], episodes=[5, "1:4", 0], skip_bad_episodes=True)
    with pytest.warns(UserWarning, match="left out") as told:
        found = load_demonstrations(config, POLICY)
    assert found.observations[:, 1].unique(sorted=False).sort()[0].tolist() == [0, 1, 2]
    assert found.observations[::10, 1].tolist() == [1, 2, 0]
    assert found.images is not None
    assert found.images.frames["img"][::10, 0, 0, 0].tolist() == [1, 2, 0]
    said = [str(warning.message) for warning in told]
    assert sum("episode 5 is left out: img holds 0.5" in text for text in said) == 1
    assert sum("episode 3 is left out: data/arm holds NaN at step 33" in text for text in said) == 1
    assert sum("img has its channels first" in text for text in said) == 1
    with pytest.raises(UserError, match=r"data/arm holds NaN at step 33 \(episode 3, its step 3\)"):
        load_demonstrations(task(tmp_path, {"arm": arm}, episodes=["1:4"]), POLICY)


def test_the_split_is_among_the_chosen_episodes(tmp_path: Path) -> None:
    episodes, split = read_task_episodes(task(tmp_path, episodes=[0, 2, 4], val_ratio=0.34))
    assert episodes.arrays["state"][::10, 1].tolist() == [0, 2, 4]
    assert (split.train.sum(), split.validation.sum()) == (2, 1)


@pytest.mark.parametrize("least", [1, 3])
def test_so_many_episodes_validate(tmp_path: Path, least: int) -> None:
    config = task(tmp_path, min_val_episodes=least, val_ratio=0.02)
    np.savez(config.data, episode_ends=np.arange(3, 61, 3), **ARRAYS)
    assert read_task_episodes(config)[1].validation.sum() == least


def test_several_keys_make_one_action(tmp_path: Path) -> None:
    found = load_demonstrations(task(tmp_path, action=["hand[1:3]", "arm[:1]"]), POLICY)
    np.testing.assert_array_equal(found.actions, np.stack([2 * STEPS, 3 * STEPS, STEPS], 1))
    one = load_demonstrations(task(tmp_path, action="arm"), POLICY)
    np.testing.assert_array_equal(one.actions, ARRAYS["arm"])
    np.testing.assert_array_equal(load_demonstrations(task(tmp_path, action=["arm"]), POLICY).actions, one.actions)


@pytest.mark.parametrize("action", [[], None, 3, ["arm", 3]])
def test_actions_that_are_none(tmp_path: Path, action: Any) -> None:
    with pytest.raises(UserError, match=r"task\.action=.* names no actions; give a key, or several"):
        action_fields(task(tmp_path, action=action))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"action": ["arm", "hand[:5]"]}, r"'hand\[:5\]' goes past the columns of hand, which has 4, from 0 to 3\."),
        ({"observation": ["state[2:]"]}, r"'state\[2:\]' takes none of the columns of state, which has 2"),
        ({"goal": ["armm"]}, r"has no key 'armm'; did you mean 'arm'"),
        ({"observation": ["state", "frame"]}, r"'frame' is no row of numbers but a picture of \[8, 8, 3\]; .*images"),
        ({"images": ["depth"]}, r"depth holds uint16 \[8, 8\] per step, which are no frames"),
        ({"images": ["imgg"]}, r"no key 'imgg'; did you mean 'img'"),
        ({"episodes": [6]}, "episodes names 6; there are 6, 0 to 5, and ranges as 0:6"),
        ({"observation": []}, r"task\.observation is empty"),
    ],
)
def test_what_the_data_do_not_have_is_said_before_a_step_is_read(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        check_task_data(task(tmp_path, {"frame": np.zeros((60, 8, 8, 3), np.uint8)}, **settings))


def test_depth_is_usable_as_numbers(tmp_path: Path) -> None:
    found = load_demonstrations(task(tmp_path, observation=["state", "depth"]), POLICY)
    assert found.observations.shape == (60, 2 + 64)
