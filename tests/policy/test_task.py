from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from support.data import write_zarr

from policy_accel.data import Episodes, read_episodes, split_episodes
from policy_accel.errors import UserError
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.track import ROBOT

Build = Callable[..., RobotConfig]


def by_hand(path: Path, window: int, horizon: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observation and action window `window` of all episodes, edges repeated, and which steps are real."""
    data = read_episodes(path)
    count = -1
    for start, end in zip(data.starts, data.episode_ends, strict=True):
        for first in range(-1, int(end - start) - horizon + 7 + 1):
            count += 1
            if count == window:
                steps = np.arange(first, first + horizon)
                rows = start + np.clip(steps, 0, end - start - 1)
                real = (steps >= 0) & (steps < end - start)
                return data.arrays["state"][rows], data.arrays["action"][rows], real
    raise AssertionError(window)


def limits(values: np.ndarray, data: np.ndarray) -> np.ndarray:
    low, high = data.min(0), data.max(0)
    return 2 * (values - low) / (high - low) - 1


@pytest.mark.parametrize("window", [0, 1, 17, 40, 90])
def test_batches_equal_windows_cut_by_hand(tiny_config: Build, demonstrations: Path, window: int) -> None:
    task = ROBOT.build(tiny_config("task.val_ratio=0"))
    data = read_episodes(demonstrations)
    observations, actions, _ = by_hand(demonstrations, window)
    batch = task.batch(torch.tensor([3, window]))
    assert batch.condition is not None
    np.testing.assert_allclose(batch.x0[1], limits(actions, data.arrays["action"]), atol=2e-6)
    np.testing.assert_allclose(batch.condition[1], limits(observations, data.arrays["state"])[:2], atol=2e-6)
    assert batch.counted is None
    assert batch.known is None


def test_windows_without_padding_lie_inside_of_their_episode(tiny_config: Build, demonstrations: Path) -> None:
    data = read_episodes(demonstrations)
    task = ROBOT.build(tiny_config("task.val_ratio=0", "task.padding=false"))
    inside = [
        list(range(first, first + 16))
        for start, end in zip(data.starts, data.episode_ends, strict=True)
        for first in range(start, end - 15)
    ]
    assert task.train.indices.tolist() == inside
    assert task.train.valid.all()


def test_inpainting_batch(tiny_config: Build, demonstrations: Path) -> None:
    task = ROBOT.build(tiny_config("task.val_ratio=0", "policy.conditioning=inpainting", "task.mask_padding=true"))
    observations, actions, real = by_hand(demonstrations, 0)
    data = read_episodes(demonstrations)
    batch = task.batch(torch.tensor([0]))
    both = np.concatenate([limits(actions, data.arrays["action"]), limits(observations, data.arrays["state"])], axis=1)
    np.testing.assert_allclose(batch.x0[0], both, atol=2e-6)
    assert batch.condition is None
    assert batch.known is not None
    assert batch.counted is not None
    known = np.zeros((16, 7), dtype=bool)
    known[:2, 2:] = True
    assert np.array_equal(batch.known, known)
    assert np.array_equal(batch.counted[0], ~known & real[:, None])


def test_a_window_belongs_to_the_group_of_its_newest_observation(tiny_config: Build, tmp_path: Path) -> None:
    """The stage changes with every step, so that a window's group tells which of its steps was looked at."""
    stages = np.arange(60) * 7 % 60
    values = np.random.default_rng(0).normal(size=(60, 5)).astype("f4")
    arrays = {"state": values, "action": values[:, :2], "stage": stages.astype("f4")[:, None]}
    write_zarr(tmp_path / "stages.zarr.zip", Episodes(arrays, np.array([25, 60])))
    for n_obs_steps in (1, 2, 3):
        task = ROBOT.build(
            tiny_config(
                f"task.data={tmp_path / 'stages.zarr.zip'}",
                "task.val_ratio=0",
                "task.group=stage",
                "acceleration/noise=assignment_in_groups",
                f"policy.n_obs_steps={n_obs_steps}",
            )
        )
        batch = task.batch(torch.arange(task.samples))
        assert isinstance(batch.condition, torch.Tensor)
        assert batch.groups is not None
        # Normalised to [-1, 1], every observation is that of one step: find the newest one of each window.
        low, high = values.min(0), values.max(0)
        newest = batch.condition[:, -1].numpy()
        steps = np.abs(newest[:, None] - (2 * (values - low) / (high - low) - 1)[None]).sum(2).argmin(1)
        assert len(set(steps.tolist())) > 20
        assert batch.groups.tolist() == stages[steps].tolist()


def test_training_and_validation_windows_share_no_step(tiny_config: Build) -> None:
    task = ROBOT.build(tiny_config("task.val_ratio=0.3"))
    assert task.validation is not None
    train, validation = (set(windows.indices.flatten().tolist()) for windows in (task.train, task.validation))
    assert train
    assert validation
    assert not train & validation
    assert task.validation_samples == len(task.validation.indices)


def test_validation_batches_show_the_episodes_that_are_not_trained_on(tiny_config: Build, demonstrations: Path) -> None:
    task = ROBOT.build(tiny_config("task.val_ratio=0.3"))
    every = limits(*2 * (read_episodes(demonstrations).arrays["action"],))

    def shown(x0: torch.Tensor) -> set[int]:
        return set(np.abs(x0.flatten(0, 1).numpy()[:, None] - every[None]).sum(2).argmin(1).tolist())

    train = shown(task.batch(torch.arange(task.samples)).x0)
    validation = shown(task.validation_batch(torch.arange(task.validation_samples)).x0)
    assert len(validation) > 20
    assert not train & validation
    first = task.validation_batch(torch.tensor([0])).x0[0].numpy()
    last = task.validation_batch(torch.tensor([task.validation_samples - 1])).x0[0].numpy()
    assert np.abs(first - last).max() > 0.1


def test_columns_of_a_key(tiny_config: Build, demonstrations: Path) -> None:
    task = ROBOT.build(
        tiny_config("task.observation=[keypoint,'state[:2]']", "task.observation_normalization=identity")
    )
    data = read_episodes(demonstrations)
    expected = np.concatenate([data.arrays["keypoint"].reshape(-1, 18), data.arrays["state"][:, :2]], axis=1)
    np.testing.assert_array_equal(task.observations, expected)


def test_validation_episodes_that_are_too_short_are_left_out(tiny_config: Build, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(47, 5)).astype("f4")
    lengths = [20, 7, 20] if split_episodes(3, val_ratio=0.1, seed=42).validation[1] else [7, 20, 20]
    if split_episodes(3, val_ratio=0.1, seed=42).validation[2]:
        lengths = [20, 20, 7]
    path = tmp_path / "short.zarr.zip"
    write_zarr(path, Episodes({"state": values, "action": values[:, :2]}, np.cumsum(lengths)))
    task = ROBOT.build(tiny_config(f"task.data={path}", "task.val_ratio=0.1"))
    assert (task.samples, task.validation_samples) == (26, 0)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("policy.horizon=64", "none of the 5 training episodes is long enough for a window of policy.horizon=64"),
        ("task.split_seed=-1", "split_seed is -1"),
        ("task.observation=[stat]", "stat"),
        ("task.observation=[]", r"task\.observation is empty"),
        ("task.observation=['state[1']", r"'state\[1' is not of the form"),
        ("task.observation=['state[7:9]']", r"takes none of the columns of state"),
        ("task.data=/nowhere/at/all.zarr", "/nowhere/at/all.zarr"),
        ("task.observation_normalization=limit", "did you mean 'limits'"),
        ("task.val_ratio=1.5", r"val_ratio is 1\.5"),
        ("task.max_train_episodes=0", "max_train_episodes is 0"),
        ("policy.horizon=18", r"horizon=18 is not divisible by 4"),
    ],
)
def test_errors(tiny_config: Build, override: str, sentence: str) -> None:
    overrides = [override] + (["model.down_dims=[8,16,32]"] if "horizon" in override else [])
    with pytest.raises(UserError, match=sentence):
        ROBOT.build(tiny_config(*overrides))


@pytest.mark.parametrize("key", ["action", "state"])
def test_nan_in_the_data_names_key_and_step(tiny_config: Build, tmp_path: Path, key: str) -> None:
    root = zarr.open_group(str(tmp_path / "bad.zarr"), mode="w", zarr_format=2)
    arrays = {"action": np.zeros((60, 2), "f4"), "state": np.zeros((60, 5), "f4")}
    arrays[key][37, 1] = np.nan
    for name, values in arrays.items():
        root.create_array(f"data/{name}", data=values)
    root.create_array("meta/episode_ends", data=np.array([30, 60]))
    with pytest.raises(UserError, match=rf"data/{key} holds NaN at step 37 \(episode 1"):
        ROBOT.build(tiny_config(f"task.data={tmp_path / 'bad.zarr'}"))
