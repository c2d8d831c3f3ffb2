"""Every image denoiser compiles as one graph."""

from __future__ import annotations

import pytest
import torch

from policy_accel.models import build_denoiser
from policy_accel.models.images import AdmConfig, DdpmConfig, DitConfig, Edm2Config, EdmConfig

CONDITION = 3

CONFIGS = [
    DdpmConfig(channels=8, multipliers=[1, 2], blocks=1, attention_resolutions=[4]),
    EdmConfig(channels=8, multipliers=[1, 2], blocks=1, attention_resolutions=[4]),
    EdmConfig(
        channels=8,
        multipliers=[1, 2],
        blocks=1,
        attention_resolutions=[],
        embedding="fourier",
        encoder="residual",
        resample_filter=[1, 3, 3, 1],
    ),
    AdmConfig(channels=8, multipliers=[1, 2], blocks=1, attention_resolutions=[4], head_channels=4),
    Edm2Config(channels=8, multipliers=[1, 2], blocks=1, attention_resolutions=[4], head_channels=4),
    DitConfig(patch=4, depth=1, width=16, heads=2),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["ddpm", "ddpmpp", "ncsnpp", "adm", "edm2", "dit"])
def test_compiles_whole(config):
    """Under autocast, so that the branch that keeps bf16 through the normalisations is there too."""
    torch.compiler.reset()
    torch.manual_seed(0)
    net = build_denoiser(config, channels=3, resolution=8, condition_dim=CONDITION).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    inputs = torch.randn(2, 3, 8, 8), torch.tensor([0.5, 300.0]), torch.eye(CONDITION)[:2]
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(compiled(*inputs), net(*inputs))


def test_compiles_whole_with_its_gradient():
    torch.compiler.reset()
    torch.manual_seed(0)
    net = build_denoiser(CONFIGS[0], channels=3, resolution=8, condition_dim=CONDITION)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    compiled(torch.randn(2, 3, 8, 8), torch.tensor([5, 300]), torch.eye(CONDITION)[:2]).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    torch.testing.assert_close(net.output.bias.grad, torch.full((3,), 2.0 * 8 * 8))
