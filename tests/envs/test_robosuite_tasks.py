"""The task files against the environments that they name."""

from __future__ import annotations

from functools import cache

import gymnasium
import numpy as np
import pytest

import policy_accel.envs  # noqa: F401
from policy_accel.envs.robosuite_tasks import TASKS, find_task, task_of_environment
from policy_accel.errors import UserError
from policy_accel.policy.demonstrations import TaskConfig
from policy_accel.policy.track import ROBOT

OBSERVED = {"lift": 19, "can": 23, "square": 23, "tool_hang": 53, "transport": 59}
"""Numbers of an observation in Diffusion Policy's task files."""


@cache
def read_task(name: str) -> TaskConfig:
    config = ROBOT.config([f"task={name}", "task.data=demo.hdf5"]).task
    assert config.name == name
    return config


# Of the image policies of robomimic and Diffusion Policy, and of rollouts on the proficient-human data.
HAND = "robot0_eye_in_hand"
CAMERAS = {
    **dict.fromkeys(("lift", "can", "square"), ("agentview", HAND)),
    "tool_hang": ("sideview", HAND),
    "transport": ("shouldercamera0", HAND, "shouldercamera1", "robot1_eye_in_hand"),
}
HORIZON = {"lift": 400, "can": 400, "square": 400, "tool_hang": 700, "transport": 700}


@pytest.mark.parametrize("name", list(TASKS))
def test_a_task_file_fits_its_environment(name):
    relative, absolute = read_task(name), read_task(f"{name}_abs")
    environment = gymnasium.make(relative.environment, **relative.environment_options)
    space = environment.observation_space
    assert sum(space[field].shape[0] for field in relative.observation) == OBSERVED[name]
    assert environment.action_space.shape == (7 * find_task(name).arms,)
    assert set(CAMERAS[name]) <= set(environment.unwrapped.robosuite.sim.model.camera_names)
    environment.close()
    assert absolute.environment_options == {**relative.environment_options, "actions": "absolute"}
    assert (relative.action, relative.action_rotation) == ("action", "none")
    assert (absolute.action, absolute.action_rotation) == ("action_abs", "rotation_6d")
    assert relative.max_steps == absolute.max_steps == HORIZON[name]
    assert relative.observation == absolute.observation


@pytest.mark.parametrize("name", list(TASKS))
def test_an_image_task_observes_the_pictures_of_its_cameras(name):
    for suffix in ("image", "image_abs"):
        config = read_task(f"{name}_{suffix}")
        cameras = config.environment_options["cameras"]
        assert config.images == [f"{camera}_image" for camera in cameras]
        assert tuple(cameras) == CAMERAS[name]
        assert config.environment_options["image_size"] == 84
        assert config.observation_normalization == "limits_except_quat"
        assert config.observation == [field for field in read_task(name).observation if field != "object"]
        assert config.max_steps == HORIZON[name]
        actions = read_task(name + suffix.removeprefix("image"))
        assert (config.action, config.action_rotation) == (actions.action, actions.action_rotation)
        assert config.environment_options["actions"] == actions.environment_options["actions"]


def test_an_image_task_is_made_as_its_file_says():
    config = read_task("lift_image")
    environment = gymnasium.make(config.environment, **{**config.environment_options, "image_size": 16})
    observation, _ = environment.reset(seed=0)
    frames = [observation[name] for name in config.images]
    assert [frame.shape for frame in frames] == [(16, 16, 3)] * 2
    assert not np.array_equal(*frames)
    environment.close()


def test_tasks_are_found_by_name_and_by_environment():
    for task in TASKS.values():
        assert task_of_environment(task.env_name) is find_task(task.name)
    assert task_of_environment("Door") is None
    with pytest.raises(UserError, match="robosuite task 'toolhang' is unknown; did you mean 'tool_hang'"):
        find_task("toolhang")
