"""The reference's set-ups for robomimic and for pictures, and the tasks that they train on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from policy_accel.groups import flatten
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.run import build_policy
from policy_accel.policy.track import ROBOT

ROBOMIMIC: dict[str, Any] = {
    "task.val_ratio": 0.02,
    "task.max_train_episodes": None,
    "task.action": "action_abs",
    "task.action_rotation": "rotation_6d",
    "task.observation_normalization": "max_abs",
    "task.action_normalization": "position_limits",
    "task.environment_options.actions": "absolute",
    "policy.horizon": 16,
    "policy.n_obs_steps": 2,
    "policy.n_action_steps": 8,
    "diffusion.target": "epsilon",
    "sampling.sampler": "ddpm",
    "sampling.steps": 100,
    "training.optimizer.lr": 1e-4,
    "training.optimizer.weight_decay": 1e-6,
    "evaluation.start_seed": 100_000,
    "evaluation.episodes": 50,
    "evaluation.slots": 28,
}
OBSERVATIONS = {"lift": 19, "can": 23, "square": 23, "tool_hang": 53, "transport": 59}
STEPS = {"lift": 400, "can": 400, "square": 400, "tool_hang": 700, "transport": 700}


def recorded(*overrides: str) -> dict[str, Any]:
    return flatten(ROBOT.record(ROBOT.config([*overrides, "task.data=x"])))


@pytest.mark.parametrize("task", list(OBSERVATIONS))
def test_the_robomimic_set_up_of_the_reference(task: str) -> None:
    found = recorded("recipe=diffusion_policy_robomimic", f"task={task}_abs")
    assert {key: found[key] for key in ROBOMIMIC} == ROBOMIMIC
    assert found["task.max_steps"] == STEPS[task]
    assert found["training.batch_size"] == 256
    assert found["model.down_dims"] == [256, 512, 1024]


def test_pictures_of_robomimic() -> None:
    found = recorded("recipe=diffusion_policy_robomimic_image", "task=can_image_abs")
    assert {key: found[key] for key in ROBOMIMIC if "observation_norm" not in key} == {
        key: value for key, value in ROBOMIMIC.items() if "observation_norm" not in key
    }
    assert (found["encoder.crop"], found["training.batch_size"]) == (76, 64)
    assert found["task.observation_normalization"] == "limits_except_quat"
    assert found["task.images"] == ["agentview_image", "robot0_eye_in_hand_image"]


def parameters(config: RobotConfig, observation_dim: int, action_dim: int, **shapes: Any) -> tuple[int, int]:
    """Of the denoiser and of the encoder, without memory for them."""
    with torch.device("meta"):
        policy = build_policy(config, observation_dim, action_dim, **shapes)
    encoder = [] if policy.encoder is None else list(policy.encoder.parameters())
    return sum(p.numel() for p in policy.denoiser.parameters()), sum(p.numel() for p in encoder)


@pytest.mark.parametrize(("task", "count"), [("lift", 65_768_970), ("can", 65_883_658), ("square", 65_883_658)])
def test_networks_have_the_size_of_the_reference(task: str, count: int) -> None:
    config = ROBOT.config(["recipe=diffusion_policy_robomimic", f"task={task}_abs", "task.data=x"])
    assert parameters(config, OBSERVATIONS[task], 10) == (count, 0)


def test_the_picture_network_has_the_size_of_the_reference() -> None:
    config = ROBOT.config(["recipe=diffusion_policy_image", "task.data=x"])
    denoiser, encoder = parameters(config, 2, 2, images={"img": (96, 96, 3)})
    assert denoiser == 251_511_938
    assert encoder == pytest.approx(11_197_000, rel=1e-3)


@pytest.mark.parametrize("recipe", ["diffusion_policy_image", "diffusion_policy_robomimic_image"])
def test_features_of_the_reference_are_rectified(recipe: str) -> None:
    """As in robomimic's ObservationEncoder, whose feature_activation is ReLU."""
    assert ROBOT.config([f"recipe={recipe}", "task.data=x"]).encoder.resnet.rectify


@pytest.mark.parametrize("task", ROBOT.choices()["task"])
def test_every_task_composes_and_is_named_after_its_file(task: str) -> None:
    given = ["task.observation=[a]", "task.action=b"] if task == "custom" else []
    config = ROBOT.config([f"task={task}", "task.data=x", *given])
    assert config.task.name == task
    assert config.task.observation
    if task != "custom":
        assert str(config.task.environment).startswith("policy_accel/")
    if "_image" in task:
        assert config.task.images
