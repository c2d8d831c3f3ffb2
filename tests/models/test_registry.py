"""Denoisers by name, and one of the user's own among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.models import (
    MLP,
    Denoiser,
    MLPConfig,
    ModelConfig,
    build_denoiser,
    denoiser_configs,
    register_denoiser,
)
from policy_accel.models.images import DdpmConfig
from policy_accel.models.registry import _REGISTRY


@dataclass
class OwnConfig(ModelConfig):
    name: str = "own"
    width: int = 3


class Own(Denoiser):
    def __init__(
        self, config: OwnConfig, *, channels: int, horizon: int, condition_shape: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.layer = nn.Linear(channels, config.width)
        self.sizes = (horizon, condition_shape)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.layer(x)


@pytest.fixture
def registry() -> Iterator[None]:
    before = dict(_REGISTRY)
    yield
    _REGISTRY.clear()
    _REGISTRY.update(before)


def test_a_track_lists_its_own_denoisers() -> None:
    assert list(denoiser_configs("robot")) == ["unet", "transformer", "mlp"]
    assert list(denoiser_configs("images")) == ["ddpm", "edm", "adm", "edm2", "dit"]


@pytest.mark.usefixtures("registry")
def test_one_call_registers_a_network() -> None:
    register_denoiser("own", OwnConfig, Own)
    assert denoiser_configs("robot")["own"] is OwnConfig
    assert "own" not in denoiser_configs("images")
    net = build_denoiser(OwnConfig(width=7), channels=2, horizon=16, condition_shape=None)
    assert net(torch.zeros(1, 16, 2), torch.zeros(1)).shape == (1, 16, 7)
    assert net.sizes == (16, None)
    register_denoiser("own", OwnConfig, Own)  # a module that is imported again


@pytest.mark.usefixtures("registry")
def test_errors() -> None:
    with pytest.raises(UserError, match=r"model 'mlp' is registered already, with MLPConfig; rename one"):
        register_denoiser("mlp", MLPConfig, MLP, track="images")
    with pytest.raises(UserError, match=r"OwnConfig\.name is 'own', and it is registered as 'mine'"):
        register_denoiser("mine", OwnConfig, Own)
    with pytest.raises(UserError, match=r"track 'robots' is unknown; did you mean 'robot'"):
        register_denoiser("own", OwnConfig, Own, track="robots")
    with pytest.raises(UserError, match=r"model.name 'edm' does not go with these settings"):
        build_denoiser(DdpmConfig(name="edm"), channels=3, resolution=32)
