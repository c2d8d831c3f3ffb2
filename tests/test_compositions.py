"""What tests compose is what Hydra alone composes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf
from support.compositions import BY_HYDRA

from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT
from policy_accel.track import Track

ROBOT_WAYS = [
    ["training.steps=7"],
    [],
    ["training.steps=7", "method=everything", "run_dir=runs/${task.name}"],
    ["task=lift", "task.data=x", "recipe=diffusion_policy_image", "training.optimizer.betas=[0.5,0.9]"],
    ["model=mlp", "model.hidden_dims=[8]", "acceleration/noise=nearest", "acceleration.noise.candidates=3"],
    ["task.environment_options={a: 1}", "task.environment_options.b=two"],
]
IMAGES_WAYS = [
    ["training.steps=7"],
    ["recipe=images_small", "method=immiscible_c2ot", "acceleration.noise.condition_ratio=0.4", "task.limit=64"],
]
WAYS = [*((ROBOT, way) for way in ROBOT_WAYS), *((IMAGES, way) for way in IMAGES_WAYS)]


@pytest.mark.parametrize(("track", "overrides"), WAYS)
def test_what_is_put_together_once_is_what_hydra_gives(track: Track[Any], overrides: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigLoaderImpl, "_load_configuration_impl", BY_HYDRA)
        expected = track.config(overrides)
    for _ in range(2):
        config = track.config(overrides)
        assert OmegaConf.structured(config) == OmegaConf.structured(expected)
        config.training.steps, config.training.optimizer.betas = 1, [0.0, 0.0]


def test_a_choice_that_changed_is_put_together_anew(tmp_path: Path) -> None:
    recipe = tmp_path / "own.yaml"
    for steps in (5, 6):
        recipe.write_text(f"training: {{steps: {steps}}}\n")
        assert ROBOT.config([f"recipe={recipe}"]).training.steps == steps
