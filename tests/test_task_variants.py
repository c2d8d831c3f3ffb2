"""Variants of a task are chosen as the task is, by name, on the command line and in recipes."""

from __future__ import annotations

import pytest

from policy_accel.errors import UserError
from policy_accel.policy.track import ROBOT

DATA = "task.data=demo.hdf5"


def test_a_variant_takes_settings_as_its_task_does() -> None:
    config = ROBOT.config(["task=can_image_abs", DATA, "task.environment_options.image_size=16", "task.max_steps=3"])
    assert config.task.environment_options == {
        "task": "can",
        "actions": "absolute",
        "cameras": ["agentview", "robot0_eye_in_hand"],
        "image_size": 16,
    }
    assert config.task.max_steps == 3


def test_a_recipe_chooses_a_variant_and_the_command_line_another() -> None:
    recipe = "recipe=diffusion_policy_robomimic"
    assert ROBOT.config([recipe, DATA]).task.name == "lift_abs"
    assert ROBOT.config([recipe, DATA, "task=tool_hang"]).task.action == "action"


def test_the_nearest_variant_is_named() -> None:
    with pytest.raises(UserError, match="task=square_imag is unknown; did you mean 'square_image'"):
        ROBOT.config(["task=square_imag", DATA])
