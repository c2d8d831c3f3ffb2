from __future__ import annotations

import pytest

from policy_accel.acceleration.config import GROUPS
from policy_accel.errors import UserError
from policy_accel.policy.track import ROBOT

RECIPES = (
    "demo",
    "diffusion_policy",
    "diffusion_policy_image",
    "diffusion_policy_robomimic",
    "diffusion_policy_robomimic_image",
    "diffusion_policy_transformer",
    "planning",
    "small",
    "small_image",
    "fast",
    "two_modes",
)
MODELS = ("unet", "unet_small", "transformer", "mlp")
TASKS = ("pusht_state", "pusht_keypoints", "custom", "can_abs", "pointmaze_large")


def test_groups_offer_files_and_typed_models() -> None:
    ROBOT.config([])
    found = ROBOT.choices()
    assert set(found) == {"task", "model", "recipe", "method", "training", "training/optimizer", *GROUPS}
    assert {"unet", "unet_small", "unet_long", "unet_large", "transformer", "mlp"} == set(found["model"])
    assert set(RECIPES) == set(found["recipe"])


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("task", TASKS)
def test_choices_on_the_command_line_win(recipe: str, task: str) -> None:
    model = MODELS[(RECIPES.index(recipe) + TASKS.index(task)) % len(MODELS)]  # so that every two of the three meet
    given = ["task.data=x", *(["task.observation=[a]", "task.action=b"] if task == "custom" else [])]
    config = ROBOT.config([f"recipe={recipe}", f"model={model}", f"task={task}", *given])
    assert config.task.name == task
    assert config.model.name == model.split("_")[0]


def test_the_transformer_recipe_differs_from_the_unet_recipe_as_in_the_reference() -> None:
    unet, transformer = (
        ROBOT.config([f"recipe={name}"]) for name in ("diffusion_policy", "diffusion_policy_transformer")
    )
    assert (unet.model.name, transformer.model.name) == ("unet", "transformer")
    optimizer = transformer.training.optimizer
    assert (optimizer.weight_decay, optimizer.betas, optimizer.warmup_steps) == (0.1, [0.9, 0.95], 1000)
    assert (optimizer.lr, transformer.diffusion.target) == (unet.training.optimizer.lr, "epsilon")


def test_a_custom_task_says_what_it_needs() -> None:
    with pytest.raises(UserError, match=r"task\.action, task\.data, task\.observation must be given"):
        ROBOT.config(["task=custom"])


def test_overrides_beat_the_recipe() -> None:
    assert ROBOT.config(["recipe=small", "training.optimizer.lr=0.5"]).training.optimizer.lr == 0.5


def test_interpolation_names_the_run() -> None:
    assert ROBOT.config(["seed=3", "recipe=small"]).run_dir == "runs/pusht_keypoints-small-baseline-unet-seed3"
