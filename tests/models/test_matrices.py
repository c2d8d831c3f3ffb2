"""Which weights each network gives to Muon."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from torch import nn

from policy_accel.models import (
    DdpmConfig,
    Denoiser,
    DitConfig,
    EdmConfig,
    MLPConfig,
    TransformerConfig,
    UnetConfig,
    build_denoiser,
)
from policy_accel.models.encoders import EncoderConfig
from policy_accel.policy.policy import DiffusionPolicy, PolicyConfig

CHUNK = {"channels": 3, "horizon": 16, "condition_shape": (2, 5)}
IMAGE = {"channels": 3, "resolution": 16, "condition_dim": 4}
MLP_CONFIG = MLPConfig(hidden_dims=[16, 16, 16], step_embedding_dim=8)


def pixels(encoder: str) -> DiffusionPolicy:
    settings = EncoderConfig(name=encoder, feature_dim=8)
    if encoder == "vit_small":
        settings.vit.dim, settings.vit.depth, settings.vit.heads = 16, 1, 2
    else:
        settings.resnet.width = 16
    images = {"camera": (96, 96, 3)}
    return DiffusionPolicy(PolicyConfig(), MLP_CONFIG, observation_dim=5, action_dim=3, images=images, encoder=settings)


NETWORKS: dict[str, tuple[Callable[[], Denoiser], str]] = {
    "unet": (
        lambda: build_denoiser(UnetConfig(down_dims=[16, 32], step_embedding_dim=16), **CHUNK),  # type: ignore[arg-type]
        r"step_encoder|down\.0\.0\.(first|residual)|head\.1",
    ),
    "transformer": (
        lambda: build_denoiser(TransformerConfig(embedding_dim=16, layers=2), **CHUNK),  # type: ignore[arg-type]
        r"input|observation|head|position|condition_position",
    ),
    "mlp": (lambda: build_denoiser(MLP_CONFIG, **CHUNK), r"step_encoder|layers\.0|head"),  # type: ignore[arg-type]
    "ddpm": (
        lambda: build_denoiser(DdpmConfig(channels=16, multipliers=[1, 2], blocks=1), **IMAGE),  # type: ignore[arg-type]
        r"embed|condition|input|output",
    ),
    "edm": (
        lambda: build_denoiser(  # type: ignore[arg-type]
            EdmConfig(channels=16, multipliers=[1, 2], blocks=1, encoder="residual"), **IMAGE
        ),
        r"embed|condition|input|output|down\.\d+\.conv",
    ),
    "dit": (
        lambda: build_denoiser(DitConfig(width=16, depth=2, heads=2, patch=4), **IMAGE),  # type: ignore[arg-type]
        r"input|time|condition|output",
    ),
    "resnet": (
        lambda: pixels("resnet18"),
        r"denoiser\.(step_encoder|layers\.0|head)|encoder\.networks\.0\.trunk\.conv1",
    ),
    "vit": (
        lambda: pixels("vit_small"),
        r"denoiser\.(step_encoder|layers\.0|head)|encoder\.networks\.0\.(patches|token|position)",
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_all_that_has_two_axes_but_for_what_sees_inputs_and_makes_outputs(name: str) -> None:
    build, besides = NETWORKS[name]
    network = build()
    matrices = network.matrices()
    axes = {name: parameter.ndim for name, parameter in network.named_parameters() if parameter.ndim > 1}
    outside = axes.keys() - matrices
    assert matrices <= axes.keys()
    assert matrices
    assert all(re.match(rf"({besides})(\.|$)", one) for one in outside), outside
    assert not any(re.match(rf"({besides})(\.|$)", one) for one in matrices)
    for part in besides.split("|"):
        assert any(re.match(part.replace("(", "").replace(")", ""), one) for one in outside) or "(" in besides, part


class Own(Denoiser):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 4)
        self.layers = nn.Sequential(
            nn.Conv1d(4, 4, 3), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 2)
        )


def test_a_network_of_ones_own_gives_all_but_its_first_and_last_layer() -> None:
    assert Own().matrices() == {"layers.1.weight", "layers.3.weight"}
