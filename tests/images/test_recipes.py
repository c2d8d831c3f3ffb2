"""Recipes of images: those of the papers, and what they say of other sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policy_accel.errors import UserError
from policy_accel.images.config import ImageConfig
from policy_accel.images.track import IMAGES

from .conftest import TINY

Build = Callable[..., ImageConfig]


def expected(**settings: Any) -> dict[str, Any]:
    return settings


RECIPES = {
    "ddpm_cifar10": expected(
        family="ddpm", target="epsilon", batch=128, lr=2e-4, steps=800_000, model="ddpm", sampler=("ddpm", 1000)
    ),
    "edm_cifar10": expected(
        family="edm", target="edm", batch=512, lr=1e-3, steps=390_625, model="edm", sampler=("heun", 18)
    ),
    "edm_ffhq64": expected(
        family="edm",
        batch=256,
        lr=2e-4,
        steps=781_250,
        warmup=39_063,
        model="edm",
        multipliers=[1, 2, 2, 2],
        dropout=0.05,
        augmentation=("edm", 0.15),
        conditional=False,
        sampler=("heun", 40),
        half_life=500_000,
        churn=0.0,
        held_out=0.0,
    ),
    "edm_afhqv2": expected(
        batch=256, lr=2e-4, multipliers=[1, 2, 2, 2], dropout=0.25, augmentation=("edm", 0.15), sampler=("heun", 40)
    ),
    "edm_imagenet64": expected(
        batch=4096,
        lr=1e-4,
        steps=610_352,
        warmup=2441,
        model="adm",
        dropout=0.1,
        augmentation=("none", 0.12),
        conditional=True,
        sampler=("heun", 256),
        half_life=50_000_000,
        churn=40.0,
        held_out=0.0,
        precision="fp16",
    ),
    "fdm_edm_ffhq64": expected(cap=800, scale="released", multiplier=1.0, dropout=0.05, sampler=("heun", 40)),
    "fdm_edm_afhqv2": expected(cap=400, scale="released", multiplier=2.0, dropout=0.25, sampler=("heun", 40)),
    "dit_imagenet256": expected(
        family="ddpm",
        target="epsilon",
        batch=256,
        lr=1e-4,
        warmup=0,
        model="dit",
        sampler=("ddpm", 250),
        conditional=True,
    ),
    "fdm_edm_cifar10": expected(family="edm", target="edm", cap=200, scale="released", multiplier=2.0, model="edm"),
    "fdm_vp_cifar10": expected(family="vp", target="epsilon", cap=400, scale="released", multiplier=2.0),
    "fdm_ve_cifar10": expected(family="ve", target="negative_epsilon", cap=400, scale="released", multiplier=1.0),
    "immiscible_ddim_cifar10": expected(choice="assignment", batch=256, sampler=("ddim", 100), family="ddpm"),
    "immiscible_fm_cifar10": expected(
        choice="nearest", candidates=4, family="flow", target="flow", batch=256, sampler=("euler", 50)
    ),
    "clts_cifar10": expected(timesteps="curriculum", decay="demon", batch=128, family="ddpm"),
    "kl_ddim_cifar10": expected(times=4, batch=32, family="ddpm", sampler=("ddim", 100)),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_those_of_the_papers(name: str) -> None:
    config = IMAGES.config([f"recipe={name}", "task.data=x"])
    acceleration, training = config.acceleration, config.training
    found = {
        "family": config.diffusion.family,
        "target": config.diffusion.target,
        "reduction": config.diffusion.loss_reduction,
        "batch": training.batch_size,
        "lr": training.optimizer.lr,
        "steps": training.steps,
        "model": config.model.name,
        "sampler": (config.sampling.sampler, config.sampling.steps),
        "warmup": training.optimizer.warmup_steps,
        "half_life": training.ema.half_life,
        "precision": training.precision,
        "multipliers": getattr(config.model, "multipliers", None),
        "dropout": getattr(config.model, "dropout", None),
        "augmentation": (config.task.augmentation, config.task.augmentation_probability),
        "conditional": config.task.conditional,
        "held_out": config.task.held_out,
        "churn": config.sampling.churn,
        "cap": acceleration.momentum.cap_warmup,
        "scale": acceleration.momentum.name,
        "multiplier": getattr(acceleration.momentum, "multiplier", None),
        "choice": acceleration.noise.name,
        "candidates": getattr(acceleration.noise, "candidates", None),
        "timesteps": acceleration.timesteps.name,
        "decay": training.optimizer.momentum_decay.name,
        "times": acceleration.path.repetition().times_per_sample,
    }
    assert {key: found[key] for key in RECIPES[name]} == RECIPES[name]
    assert found["reduction"] == ("sum" if name.startswith(("edm", "fdm")) else "mean")
    published = not name.startswith(("ddpm", "edm", "dit"))
    assert config.method == ("published" if published else "baseline")


@pytest.mark.parametrize("name", IMAGES.choices()["recipe"])
def test_every_recipe_can_be_built_and_run_small(name: str, tiny_images: Build, shapes: Path) -> None:
    """The recipe's objective, optimiser and sampler with a tiny net on shapes."""
    model = IMAGES.config([f"recipe={name}", "task.data=x"]).model.name
    config = IMAGES.config(
        [
            f"recipe={name}",
            f"task.data={shapes}",
            *TINY[model],
            "training.steps=2",
            "training.batch_size=4",
            "training.device=cpu",
            "task.resolution=null",  # as small as they are
            "training.precision=fp32",  # fp16 is slow here
            "training.evaluate_every=0",
            "training.validate_every=0",
            "training.optimizer.warmup_steps=1",
            "sampling.steps=2",
            "evaluation.samples=0",
            "evaluation.curve_samples=0",
            "evaluation.grid=2",
            "evaluation.video=false",
            f"run_dir={tiny_images().run_dir}",
        ]
    )
    assert IMAGES.train(config).finished


def told(*overrides: str) -> list[str]:
    said: list[str] = []
    IMAGES.config([*overrides, "task.data=x"], report=said.append)
    return said


def test_a_recipe_of_one_set_says_what_it_takes_to_another(tmp_path: Path) -> None:
    (said,) = told("recipe=edm_cifar10", "task=ffhq64")
    assert said.startswith("recipe=edm_cifar10 is made for task=cifar10: its network, dropout, ")
    assert said.endswith("are taken to task=ffhq64 as they are; recipes of ffhq64: edm_ffhq64, fdm_edm_ffhq64.")
    (said,) = told("recipe=edm_ffhq64", "task=celeba64")
    assert said.endswith("; no recipe that ships is of celeba64.")
    own = tmp_path / "own.yaml"
    own.write_text("track: images\ndefaults: [ddpm_cifar10]\n")
    assert told(f"recipe={own}", "task=custom_images")[0].startswith(f"recipe={own} is made for task=cifar10: ")
    for overrides in (["recipe=edm_cifar10"], ["recipe=edm_cifar10", "task=cifar10"], ["task=mnist"]):
        assert told(*overrides) == []
    assert told("recipe=images_small", "task=mnist") == []


def test_a_paper_s_recipe_has_a_baseline_of_its_own() -> None:
    with pytest.raises(UserError, match="which method=baseline does not turn off"):
        IMAGES.config(["recipe=kl_ddim_cifar10", "method=baseline"])
