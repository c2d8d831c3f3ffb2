"""ADM against a plain float64 computation and the published size."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.models import build_denoiser
from policy_accel.models.images import AdmConfig

SMALL = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention_resolutions": [4], "head_channels": 4}


def test_published_net_has_the_published_size():
    """ImageNet at 64 x 64 with 1,000 classes: "296 M"."""
    with torch.device("meta"):
        net = build_denoiser(AdmConfig(), channels=3, resolution=64, condition_dim=1000)
    assert sum(p.numel() for p in net.parameters()) == 295_899_267


def reference(weights: dict[str, Tensor], x: Tensor, t: Tensor, condition: Tensor, head_channels: int) -> Tensor:
    """The network of `SMALL` block by block, x [B, C, 8, 8] float64."""

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def conv(name: str, value: Tensor) -> Tensor:
        kernel = weights[f"{name}.weight"]
        return F.conv2d(value, kernel, weights[f"{name}.bias"], padding=kernel.shape[-1] // 2)

    def norm(name: str, value: Tensor) -> Tensor:
        groups = min(32, value.shape[1] // 4)
        split = value.view(len(value), groups, -1)
        split = (split - split.mean(2, keepdim=True)) / (split.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
        return split.view(value.shape) * weights[f"{name}.weight"].view(-1, 1, 1) + weights[f"{name}.bias"].view(
            -1, 1, 1
        )

    def attention(name: str, value: Tensor) -> Tensor:
        tokens = norm(f"{name}.norm", value).flatten(2).transpose(1, 2)
        q, k, v = linear(f"{name}.qkv", tokens).chunk(3, dim=2)
        heads = []
        for begin in range(0, value.shape[1], head_channels):
            part = slice(begin, begin + head_channels)
            scores = (q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(head_channels)).softmax(2)
            heads.append(scores @ v[..., part])
        return linear(f"{name}.out", torch.cat(heads, 2)).transpose(1, 2).reshape(value.shape)

    def resized(value: Tensor, way: str | None) -> Tensor:
        if way == "down":
            return (value[..., ::2, ::2] + value[..., 1::2, ::2] + value[..., ::2, 1::2] + value[..., 1::2, 1::2]) / 4
        return value.repeat_interleave(2, 2).repeat_interleave(2, 3) if way == "up" else value

    def block(name: str, value: Tensor, way: str | None = None) -> Tensor:
        hidden = conv(f"{name}.conv_in", resized(F.silu(norm(f"{name}.norm_in", value)), way))
        scale, shift = linear(f"{name}.embedding", embedding)[:, :, None, None].chunk(2, 1)
        hidden = conv(f"{name}.conv_out", F.silu(norm(f"{name}.norm_out", hidden) * (1 + scale) + shift))
        value = resized(value, way)
        value = hidden + (conv(f"{name}.residual", value) if f"{name}.residual.weight" in weights else value)
        return value + attention(f"{name}.attention", value) if f"{name}.attention.qkv.weight" in weights else value

    angles = t[:, None] * 10_000.0 ** -(torch.arange(4, dtype=torch.float64) / 4)
    time = linear("time.mix.2", F.silu(linear("time.mix.0", torch.cat([angles.cos(), angles.sin()], 1))))
    embedding = F.silu(time + condition @ weights["condition.weight"].T)
    skips = [conv("input", x)]
    for index, way in enumerate((None, "down", None)):
        skips.append(block(f"down.{index}", skips[-1], way))
    x = block("middle.1", block("middle.0", skips[-1]))
    for index, way in enumerate((None, None, "up", None, None)):
        x = block(f"up.{index}", x if way else torch.cat([x, skips.pop()], 1), way)
    return conv("output", F.silu(norm("norm", x)))


def test_equals_the_plain_computation():
    torch.manual_seed(0)
    net = build_denoiser(AdmConfig(**SMALL), channels=3, resolution=8, condition_dim=5).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.2 * torch.randn_like(p))
    x, t, condition = torch.randn(2, 3, 8, 8), torch.tensor([-0.7, 0.4]), torch.eye(5)[[1, 3]]
    weights = {name: value.double() for name, value in net.state_dict().items()}
    assert (
        "up.0.attention.qkv.weight" in weights
    )  # all blocks of the decoder attend, where its last alone does in EDM's
    assert "down.1.residual.weight" not in weights  # halved without a convolution
    expected = reference(weights, x.double(), t.double(), condition.double(), 4)
    assert expected.std() > 0.1
    torch.testing.assert_close(net(x, t, condition).double(), expected, atol=1e-4, rtol=1e-4)


def test_weights_start_as_published():
    torch.manual_seed(0)
    config = AdmConfig(channels=64, multipliers=[1], blocks=1, attention_resolutions=[8])
    net = build_denoiser(config, channels=3, resolution=8, condition_dim=60)
    assert not net(torch.randn(2, 3, 8, 8), torch.tensor([-1.0, 1.0])).any()
    block = net.down[0]
    assert not block.conv_out.weight.any()
    assert not block.attention.out.weight.any()
    for weight, variance in (
        (block.conv_in.weight, 1 / (3 * 9 * 64)),
        (block.embedding.bias, 1 / (3 * 256)),
        (block.attention.qkv.weight, 1 / (3 * 64)),
        (net.condition.weight, 1.0),
    ):
        assert weight.var().item() == pytest.approx(variance, rel=0.15)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"head_channels": 5}, "model.head_channels=5 does not divide the 16 channels of an attention layer"),
        ({"head_channels": 0}, "model.head_channels=0 must be at least 1"),
        ({"attention_resolutions": [5]}, "model.attention_resolutions names 5"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        build_denoiser(AdmConfig(**{**SMALL, **settings}), channels=3, resolution=8)
