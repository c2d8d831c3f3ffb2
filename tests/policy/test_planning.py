from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.data import write_zarr

from policy_accel.data import Episodes, read_episodes
from policy_accel.diffusion import Batch
from policy_accel.errors import UserError
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.track import ROBOT

Build = Callable[..., RobotConfig]
HORIZON, OBSERVATION, ACTION = 16, 4, 2


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes of 20 to 40 steps whose goal is where they end."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(20, 40, 8)
    steps, ends = int(lengths.sum()), lengths.cumsum()
    observation = np.cumsum(generator.normal(size=(steps, OBSERVATION)), axis=0).astype(np.float32)
    arrays = {
        "observation": observation,
        "desired_goal": np.repeat(observation[ends - 1, 1:3], lengths, axis=0),
        "action": generator.normal(size=(steps, ACTION)).astype(np.float32),
    }
    path = tmp_path_factory.mktemp("walks") / "walks.zarr.zip"
    write_zarr(path, Episodes(arrays, ends))
    return path


@pytest.fixture
def build(walks: Path, tmp_path: Path) -> Build:
    def configure(*overrides: str) -> RobotConfig:
        return ROBOT.config(
            [
                "task=custom",
                "model=unet",
                f"task.data={walks}",
                "task.observation=[observation]",
                "task.action=action",
                "task.goal=[desired_goal]",
                "task.goal_state='observation[1:3]'",
                "task.val_ratio=0.2",
                "policy.conditioning=planning",
                f"policy.horizon={HORIZON}",
                "policy.n_obs_steps=1",
                "model.down_dims=[8,16]",
                "model.kernel_size=3",
                "model.step_embedding_dim=8",
                "training.device=cpu",
                "training.steps=4",
                "training.batch_size=8",
                f"run_dir={tmp_path / 'run'}",
                *overrides,
            ]
        )

    return configure


def test_a_plan_is_pinned_to_the_present_and_to_where_its_window_ends(build: Build, walks: Path) -> None:
    task = ROBOT.build(build("task.observation_normalization=identity", "task.action_normalization=identity"))
    data = read_episodes(walks)
    batch = task.batch(torch.arange(task.samples))
    assert isinstance(batch.condition, torch.Tensor)
    assert batch.known is not None
    assert batch.counted is not None
    known = np.zeros((HORIZON, ACTION + OBSERVATION), dtype=bool)
    known[0, ACTION:] = True
    known[-1, [ACTION + 1, ACTION + 2]] = True
    assert np.array_equal(batch.known, known)
    assert np.array_equal(batch.counted, ~known)
    steps = task.train.indices
    observed = data.arrays["observation"]
    np.testing.assert_array_equal(batch.x0[:, :, ACTION:], observed[steps])
    told = np.concatenate([observed[steps[:, :1]], observed[steps[:, -1:]][:, :, 1:3]], axis=2)
    np.testing.assert_array_equal(batch.condition, told)


def test_one_window_begins_at_every_step_and_waits_where_the_episode_ends(build: Build, walks: Path) -> None:
    task = ROBOT.build(build())
    data = read_episodes(walks)
    starts = sorted(task.train.indices[:, 0].tolist() + task.validation.indices[:, 0].tolist())  # type: ignore[union-attr]
    assert starts == list(range(data.steps))
    ends = np.searchsorted(data.episode_ends, task.train.indices[:, 0].numpy(), side="right")
    last = data.episode_ends[ends] - 1
    np.testing.assert_array_equal(
        task.train.indices[:, -1].numpy(), np.minimum(task.train.indices[:, 0].numpy() + HORIZON - 1, last)
    )


def test_sampling_puts_observation_and_goal_into_the_plan(build: Build) -> None:
    ROBOT.train(build("evaluation.episodes=0"))
    run = ROBOT.load(Path(build().run_dir))
    policy = run.policy
    assert policy.goal_columns == (1, 2)
    assert policy.input_dim == OBSERVATION + 2
    generator = torch.Generator().manual_seed(1)
    observations = torch.randn(3, 1, policy.input_dim, generator=generator)
    noise = torch.randn(3, *policy.noise_shape(run.sampler), generator=generator)
    plan = policy.plan(observations, noise, sampler=run.sampler)
    states = policy.observation_normalizer.inverse(plan[:, :, ACTION:])
    torch.testing.assert_close(states[:, 0], observations[:, 0, :OBSERVATION], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(states[:, -1, 1:3], observations[:, 0, OBSERVATION:], atol=1e-4, rtol=1e-4)
    other = observations.clone()
    other[:, 0, OBSERVATION:] += 3.0
    moved = policy.plan(other, noise, sampler=run.sampler)
    assert (moved[:, HORIZON // 2] - plan[:, HORIZON // 2]).abs().max() > 1e-4
    assert run.act(observations).shape == (3, 8, ACTION)


def test_the_goal_follows_the_observation_of_a_chunk(build: Build, walks: Path) -> None:
    task = ROBOT.build(
        build("policy.conditioning=global", "policy.n_obs_steps=2", "task.observation_normalization=identity")
    )
    data = read_episodes(walks)
    both = np.concatenate([data.arrays["observation"], data.arrays["desired_goal"]], axis=1)
    batch: Batch = task.batch(torch.arange(5))
    assert isinstance(batch.condition, torch.Tensor)
    np.testing.assert_array_equal(batch.condition, both[task.train.indices[:5, :2]])
    assert task.policy.input_dim == OBSERVATION + 2


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("task.goal=[]", "planning needs a goal"),
        ("task.goal_state=null", "planning needs a goal"),
        (
            "task.goal_state='action[:2]'",
            "column 0 of action, which task.observation=.observation. does not hold",
        ),
        ("task.images=[observation]", "plans numbers, not pictures"),
        ("task.goal_state='observation[:3]'", r"task.goal=.desired_goal. has 2 numbers and .* takes 3 columns"),
        ("task.environment_keys={observatoin: x}", "did you mean 'observation'"),
    ],
)
def test_goals_that_cannot_be_planned_for_are_refused(build: Build, override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ROBOT.build(build(override))
