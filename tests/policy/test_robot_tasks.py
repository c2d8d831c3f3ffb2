"""Tasks on their real simulators, from the expert's file to a score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policy_accel import Policy
from policy_accel.data import Episodes, MemoryReader, read_episodes, write_episodes
from policy_accel.envs.fetch_expert import generate as generate_fetch
from policy_accel.envs.maze_expert import generate as generate_maze
from policy_accel.envs.robosuite_demonstrations import generate as generate_robosuite
from policy_accel.errors import UserError
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.evaluate import PolicyEvaluator, environment_spec
from policy_accel.policy.track import ROBOT

Configure = Callable[..., RobotConfig]
SHORT = [
    "model=unet_small",
    "model.down_dims=[8,16]",
    "model.step_embedding_dim=8",
    "sampling.steps=2",
    "training.device=cpu",
    "training.steps=2",
    "training.batch_size=8",
    "training.logging.every=1",
    "evaluation.episodes=1",
    "evaluation.workers=0",
    "evaluation.videos=0",
    "task.max_steps=8",
]


@pytest.fixture(scope="module")
def lift() -> Episodes:
    return generate_robosuite(2, 0, task="lift")


@pytest.fixture(scope="module")
def lift_file(lift: Episodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lift") / "lift.hdf5"
    write_episodes(path, MemoryReader(lift), "robomimic")
    return path


@pytest.fixture
def configure(lift_file: Path, tmp_path: Path) -> Configure:
    def build(*overrides: str) -> RobotConfig:
        data = [] if any(o.startswith("task.data=") for o in overrides) else [f"task.data={lift_file}"]
        return ROBOT.config([*SHORT, *data, f"run_dir={tmp_path / 'run'}", *overrides])

    return build


@pytest.mark.parametrize(("task", "executed"), [("lift", 7), ("lift_abs", 7)])
def test_lift_is_trained_and_scored_in_the_environment_of_its_file(
    configure: Configure, lift: Episodes, task: str, executed: int
) -> None:
    config = configure(f"task={task}")
    trained = ROBOT.train(config)
    assert trained.evaluation is not None
    assert trained.evaluation["episodes"][0]["length"] == 8
    run = ROBOT.load(Path(config.run_dir))
    assert run.env_args == lift.metadata["env_args"]
    assert (run.policy.input_dim, run.policy.executed_dim) == (19, executed)
    assert environment_spec(config.task, 2, None, run.env_args).kwargs["env_args"] == run.env_args
    with pytest.raises(UserError, match="does not say in which environment it was recorded"):
        PolicyEvaluator(config, run.policy, Path(config.run_dir))


def test_absolute_actions_are_learnt_with_six_numbers_of_rotation(configure: Configure, lift: Episodes) -> None:
    task = ROBOT.build(configure("task=lift_abs", "task.val_ratio=0"))
    assert task.actions.shape == (lift.steps, 10)
    normalized = task.actions[:, :3]
    torch.testing.assert_close(normalized.amax(0), torch.ones(3), atol=1e-5, rtol=0)
    decoded = task.policy.executed(task.actions[None, :16])
    expected = lift.arrays["action_abs"][1:9]
    np.testing.assert_allclose(decoded[0, :, [0, 1, 2, 6]], expected[:, [0, 1, 2, 6]], atol=1e-5)
    np.testing.assert_allclose(decoded[0], expected, atol=2e-3)


def test_limits_leave_quaternions_alone(configure: Configure, lift: Episodes) -> None:
    task = ROBOT.build(configure("task=lift", "task.observation_normalization=limits_except_quat", "task.val_ratio=0"))
    seen = task.observations.numpy()
    np.testing.assert_array_equal(seen[:, 13:17], lift.arrays["robot0_eef_quat"].astype(np.float32))
    np.testing.assert_allclose(seen[:, 10:13].max(0), 1.0, atol=1e-5)
    np.testing.assert_allclose(seen[:, 17:].min(0), -1.0, atol=1e-5)


def test_a_filter_of_the_file_chooses_episodes(configure: Configure, lift: Episodes) -> None:
    chosen = ROBOT.build(configure("task=lift", "task.filter_key=train", "task.val_ratio=0"))
    everything = ROBOT.build(configure("task=lift", "task.val_ratio=0"))
    own = [facts["filters"] for facts in lift.episode_metadata]
    assert own == [["train"], ["valid"]]
    assert chosen.samples == lift.lengths[0] - 7
    assert everything.samples == lift.steps - 2 * 7


def wrong(lift: Episodes, path: Path, **env_args: object) -> str:
    facts = {**lift.metadata["env_args"], **env_args}
    changed = replace(lift, metadata={**lift.metadata, "env_args": facts})
    write_episodes(path, MemoryReader(changed), "robomimic")
    return f"task.data={path}"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task=lift", "task.observation=[objct]"], "did you mean 'object'"),
        (["task=lift", "task.action=action_abs"], r"number \d of the demonstrations' actions \(action_abs\) goes from"),
        (["task=lift", "task.action='action[:6]'"], "the demonstrations have 6 numbers a step"),
        (["task=lift", "task.environment_keys={object: cube}"], "gives no observation 'cube' for task field 'object'"),
        (["task=lift_image", "encoder.crop=76"], "no key 'agentview_image'"),
        (["task=lift", "evaluation.camera=ceiling", "evaluation.videos=1"], "ceiling.*agentview"),
        (["task=lift", "task.filter_key=better"], "better"),
        (["task=lift", "task.action_rotation=rotation_6d"], "rotation_6d is for absolute poses"),
        (["task=lift", "evaluation.camera=frontview"], "films nothing with evaluation.videos=0"),
    ],
)
def test_what_does_not_fit_is_one_sentence(configure: Configure, overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        ROBOT.train(configure(*overrides))
    assert "\n" not in str(raised.value)


def test_a_file_of_another_generation_names_both_versions(configure: Configure, lift: Episodes, tmp_path: Path) -> None:
    data = wrong(lift, tmp_path / "old.hdf5", env_version="1.4.1")
    with pytest.raises(UserError, match=r"old\.hdf5: .*1\.4\.1.*1\.5\.1"):
        ROBOT.train(configure("task=lift", data))


def test_a_truncated_file_is_named(configure: Configure, lift_file: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.hdf5"
    cut.write_bytes(lift_file.read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"cut\.hdf5.*(truncated|damaged|cut)"):
        ROBOT.build(configure("task=lift", f"task.data={cut}"))


@pytest.mark.parametrize("recipe", ["small", "planning"])
def test_goals_of_a_maze_in_chunks_and_in_plans(configure: Configure, tmp_path: Path, recipe: str) -> None:
    path = tmp_path / "maze.zarr.zip"
    write_episodes(path, MemoryReader(generate_maze(3, 0, maze="umaze")), "zarr")
    planning = ["policy.horizon=64"] if recipe == "planning" else []
    config = configure(f"recipe={recipe}", "task=pointmaze_umaze", f"task.data={path}", *planning)
    trained = ROBOT.train(config)
    assert trained.evaluation is not None
    run = ROBOT.load(Path(config.run_dir))
    assert run.policy.input_dim == 6
    assert run.policy.goal_columns == ((0, 1) if recipe == "planning" else ())
    policy = Policy(run)
    observation = {"observation": np.zeros(4), "desired_goal": np.ones(2), "achieved_goal": np.zeros(2)}
    assert policy.act(observation).shape == (2,)
    with pytest.raises(UserError, match="has no entry 'desired_goal'"):
        Policy(run).act({"observation": np.zeros(4)})


def test_fetch_through_lerobot(configure: Configure, tmp_path: Path) -> None:
    path = tmp_path / "fetch"
    made = generate_fetch(2, 0, task="pick_and_place")
    write_episodes(path, MemoryReader(made), "lerobot")
    back = read_episodes(path)
    assert all(np.array_equal(back.arrays[key], values) for key, values in made.arrays.items())
    trained = ROBOT.train(configure("task=fetch_pick_and_place", f"task.data={path}"))
    assert trained.evaluation is not None


def test_the_human_door_demonstrations(configure: Configure, shared_data: Path) -> None:
    config = configure("task=adroit_door", f"task.data={shared_data / 'adroit_door_human.npz'}")
    trained = ROBOT.train(config)
    assert trained.evaluation is not None
    assert ROBOT.load(Path(config.run_dir)).policy.input_dim == 39
