from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import yaml
from gymnasium import spaces

from policy_accel.envs.adroit import AdroitDoor
from policy_accel.envs.fetch import Fetch
from policy_accel.envs.fetch_expert import generate as generate_fetch
from policy_accel.envs.kitchen import Kitchen
from policy_accel.envs.maze_expert import generate as generate_maze
from policy_accel.envs.mazes import AntMaze, PointMaze
from policy_accel.envs.planning import as_float32, as_float32_space
from policy_accel.extras import to_install
from policy_accel.policy.fields import columns, parse_field

ENVIRONMENTS = {
    "policy_accel/PointMaze-v0": PointMaze,
    "policy_accel/AntMaze-v0": AntMaze,
    "policy_accel/Fetch-v0": Fetch,
    "policy_accel/Kitchen-v0": Kitchen,
    "policy_accel/AdroitDoor-v0": AdroitDoor,
}
WIDTHS = {
    "pointmaze_umaze": (4, 2, 2),
    "pointmaze_medium": (4, 2, 2),
    "pointmaze_large": (4, 2, 2),
    "antmaze_umaze": (29, 2, 8),
    "fetch_push": (25, 3, 4),
    "fetch_pick_and_place": (25, 3, 4),
    "kitchen": (59, 0, 9),
    "adroit_door": (39, 0, 28),
}
GENERATED = {
    "pointmaze_umaze": lambda: generate_maze(1, 0, maze="umaze"),
    "pointmaze_medium": lambda: generate_maze(1, 0, maze="medium"),
    "pointmaze_large": lambda: generate_maze(1, 0, maze="large"),
    "fetch_push": lambda: generate_fetch(1, 0, task="push"),
    "fetch_pick_and_place": lambda: generate_fetch(1, 0, task="pick_and_place"),
}


@pytest.fixture(scope="module")
def tasks(repository):
    return {name: yaml.safe_load((repository / "configs/task" / f"{name}.yaml").read_text()) for name in WIDTHS}


@pytest.mark.parametrize("name", WIDTHS)
def test_tasks_fit_their_environments(tasks, name):
    task = tasks[name]
    assert task["name"] == name
    env = ENVIRONMENTS[task["environment"]](**task.get("environment_options", {}))
    observation, info = env.reset(seed=0)
    assert isinstance(env, gymnasium.Env)
    assert env.observation_space.contains(observation)
    assert info["is_success"] is False

    def width(fields):
        return sum(observation[parse_field(one)[0]][parse_field(one)[1]].size for one in fields)

    assert (width(task["observation"]), width(task.get("goal", [])), env.action_space.shape[0]) == WIDTHS[name]
    if "goal_state" in task:
        key, rows = parse_field(task["goal_state"])
        np.testing.assert_array_equal(observation[key][rows], observation["achieved_goal"])


@pytest.mark.parametrize("name", GENERATED)
def test_tasks_fit_their_demonstrations(tasks, name):
    task, made = tasks[name], GENERATED[name]()
    widths = tuple(columns(made, fields).shape[1] for fields in (task["observation"], task["goal"], [task["action"]]))
    assert widths == WIDTHS[name]
    arguments = made.metadata["env_args"]
    assert (arguments["env_name"], arguments["env_kwargs"]) == (task["environment"], task["environment_options"])
    assert made.metadata["fps"] == ENVIRONMENTS[task["environment"]].metadata["render_fps"]
    # The goal takes the place of the goal state in the end of a plan.
    reached = columns(made, [task["goal_state"]])[-1]
    assert np.linalg.norm(reached - columns(made, task["goal"])[-1]) < (0.15 if "maze" in name else 0.05)


def test_door_task_fits_the_human_demonstrations(tasks, shared_data):
    from policy_accel.data import read_episodes

    task = tasks["adroit_door"]
    episodes = read_episodes(shared_data / "adroit_door_human.npz", keys=[*task["observation"], task["action"]])
    assert columns(episodes, task["observation"]).shape == (6729, 39)
    assert columns(episodes, [task["action"]]).shape == (6729, 28)
    assert episodes.lengths.max() <= task["max_steps"]


def test_nested_observations_become_names_with_dots():
    nested = {"a": np.arange(2.0), "goal": {"kettle": np.ones(3), "deep": {"x": np.zeros(1)}}}
    flat = as_float32(nested)
    assert {key: value.shape for key, value in flat.items()} == {"a": (2,), "goal.kettle": (3,), "goal.deep.x": (1,)}
    assert all(value.dtype == np.float32 for value in flat.values())
    box = spaces.Box(-1, 1, (3,), np.float64)
    space = as_float32_space(spaces.Dict({"goal": spaces.Dict({"kettle": box})}))
    assert list(space.spaces) == ["goal.kettle"]
    assert space["goal.kettle"].dtype == np.float32


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("import sys; sys.modules['gymnasium_robotics'] = None", to_install("planning")),
        ("import mujoco; mujoco.__version__ = '3.12.1'", "cannot drive MuJoCo 3.12.1"),
    ],
)
def test_missing_and_too_new_packages_are_one_sentence(before, message):
    script = f"""
{before}
from policy_accel.errors import UserError
try:
    import policy_accel.envs.mazes
except UserError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert message in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("make", [PointMaze, AntMaze, Fetch, lambda: Fetch("push"), Kitchen, AdroitDoor])
def test_a_seed_means_the_same_episode_in_a_used_environment(make):
    used, fresh = make(), make()
    actions = np.random.default_rng(0).uniform(-1, 1, (12, *used.action_space.shape))
    used.reset(seed=1)
    for action in actions:
        used.step(action)
    episodes = []
    for env in (used, fresh):
        rows = [env.reset(seed=2)[0]] + [env.step(action)[0] for action in actions[::-1]]
        episodes.append([np.concatenate(list(row.values())) for row in rows])
    np.testing.assert_array_equal(*episodes)
