"""The DDPM U-Net: size, first weights, condition, refusals."""

from __future__ import annotations

import pytest
import torch

from policy_accel.errors import UserError
from policy_accel.models import build_denoiser
from policy_accel.models.images import DdpmConfig
from policy_accel.models.images.ddpm import ResidualBlock


def test_published_net_has_the_published_size():
    with torch.device("meta"):
        net = build_denoiser(DdpmConfig(), channels=3, resolution=32)
    assert sum(p.numel() for p in net.parameters()) == 35_746_307


def test_weights_start_as_published():
    torch.manual_seed(0)
    net = build_denoiser(DdpmConfig(channels=64), channels=3, resolution=32, condition_dim=10)
    assert not net(torch.randn(2, 3, 32, 32), torch.tensor([3, 900])).any()
    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    assert not any(block.conv_out.weight.any() for block in blocks)
    assert not any(block.attention.out.weight.any() for block in blocks if block.attention is not None)
    for weight, variance in (
        (net.down[0].conv_in.weight, 2 / (9 * 64 + 9 * 64)),
        (net.down[3].attention.qkv.weight, 2 / (128 + 128)),
        (net.embed[0].weight, 2 / (64 + 256)),
        (net.condition.weight, 1.0),
    ):
        assert weight.var().item() == pytest.approx(variance, rel=0.06)
    assert not any(p.any() for name, p in net.named_parameters() if name.endswith("bias"))


def test_condition_is_added_to_the_time_embedding():
    torch.manual_seed(0)
    net = build_denoiser(
        DdpmConfig(channels=8, multipliers=[1, 2], attention_resolutions=[], dropout=0.0),
        channels=1,
        resolution=8,
        condition_dim=3,
    )
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    x, t = torch.randn(1, 1, 8, 8), torch.tensor([5])
    with_class = net(x, t, torch.tensor([[0.0, 1.0, 0.0]]))
    with torch.no_grad():
        net.embed[2].bias += net.condition.weight[:, 1]
    torch.testing.assert_close(net(x, t), with_class)


@pytest.mark.parametrize(
    ("settings", "resolution", "said"),
    [
        ({}, 28, r"a side of 28 pixels can be halved 2 times; give at most 3 multipliers"),
        ({"multipliers": [1, 2, 2]}, 28, r"attention_resolutions names 16, .* seen at 28, 14, 7"),
        ({"multipliers": []}, 32, "multipliers is empty"),
        ({"channels": 30}, 32, r"model.channels=30 cannot be normalised"),
        ({"channels": 144}, 32, r"model.channels=144 cannot be normalised"),
        ({"heads": 3}, 32, r"model.heads=3 does not divide"),
        ({"dropout": 1.0}, 32, r"model.dropout=1.0 must lie"),
        ({"blocks": 0}, 32, r"model.blocks=0 must be at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, resolution, said):
    with pytest.raises(UserError, match=said):
        build_denoiser(DdpmConfig(**settings), channels=3, resolution=resolution)
