"""Image runs whose network learns the variance of a step too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.images.config import ImageConfig
from policy_accel.images.generation.guidance import guided
from policy_accel.images.track import IMAGES
from policy_accel.models import Denoiser, ModelConfig, build_denoiser, registry
from policy_accel.policy.track import ROBOT

Build = Callable[..., ImageConfig]


def test_a_run_learns_it_and_draws_with_it(tiny_images: Build) -> None:
    config = tiny_images(
        "model=dit", "diffusion.learn_sigma=true", "sampling.sampler=ddpm", "sampling.clip_sample=null"
    )
    result = IMAGES.train(config).evaluation
    assert result is not None
    assert result["sampler"] == "ddpm"
    loaded = IMAGES.load(Path(config.run_dir))
    assert loaded.shape == (3, 16, 16)
    learnt = loaded.model(torch.zeros(1, 3, 16, 16), torch.tensor([50]), None)
    assert learnt.shape == (1, 6, 16, 16)
    assert (learnt != 0).any(dim=(0, 2, 3)).all()  # zeros at first
    noise, used = torch.randn(1, 3, 3, 16, 16), []
    for kept in (1.0, 0.0):

        def denoise(x: Tensor, t: Tensor, kept: float = kept) -> Tensor:
            output = loaded.model(x, t, None)
            return torch.cat([output[:, :3], kept * output[:, 3:] + (1.0 - kept)], dim=1)

        used.append(loaded.sampler(denoise, noise))
    assert not torch.allclose(*used)


def test_guidance_leaves_the_variance_of_the_conditional_prediction() -> None:
    def network(x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        assert condition is not None
        told = condition.sum(1).view(-1, 1, 1, 1)
        return torch.cat([x + told, x - 3.0 * told], dim=1)

    x = torch.randn(2, 3, 4, 4)
    found = guided(network, torch.eye(2), 4.0)(x, torch.zeros(2))
    torch.testing.assert_close(found, torch.cat([x + 4.0, x - 3.0], dim=1))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["method=edm", "diffusion.learn_sigma=true"],
            "learn_sigma=true has no effect with diffusion.family=edm",
        ),
        (
            ["diffusion.learn_sigma=true", "diffusion.timesteps=1"],
            "diffusion.learn_sigma=true: process must have two",
        ),
    ],
)
def test_processes_without_steps_are_refused(overrides: list[str], sentence: str, tiny_images: Build) -> None:
    with pytest.raises(UserError, match=sentence):
        IMAGES.check(tiny_images(*overrides))


def test_policies_do_not_learn_it() -> None:
    with pytest.raises(UserError, match=r"diffusion.learn_sigma=true is for images"):
        ROBOT.check(ROBOT.config(["diffusion.learn_sigma=true"]))


def test_a_network_that_does_not_return_more_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class OwnConfig(ModelConfig):
        name: str = "own"

    class Own(Denoiser):
        def __init__(self, config: Any, *, channels: int, resolution: int, condition_dim: int = 0) -> None:
            super().__init__()

    monkeypatch.setattr(registry, "_REGISTRY", {"own": (OwnConfig, Own, "images")})
    assert isinstance(build_denoiser(OwnConfig(), channels=3, resolution=8), Own)
    with pytest.raises(UserError, match=r"model=own takes no out_channels; set diffusion.learn_sigma=false"):
        build_denoiser(OwnConfig(), channels=3, resolution=8, out_channels=6)
