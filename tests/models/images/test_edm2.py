"""EDM2's network: magnitudes that are kept, weights of unit length, the uncertainty, and blocks by their equations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from policy_accel.errors import UserError
from policy_accel.models import build_denoiser
from policy_accel.models.flops import training_flops
from policy_accel.models.images import Edm2Config, Edm2Unet
from policy_accel.models.images.edm2 import Edm2Block, MPFourier, MPLayer, join, mix, normalise

SMALL: dict[str, Any] = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention_resolutions": [4]}


def small(**settings: Any) -> Edm2Unet:
    config = Edm2Config(**{**SMALL, "head_channels": 4, "uncertainty": 16, **settings})
    net = build_denoiser(config, channels=3, resolution=8, condition_dim=5)
    assert isinstance(net, Edm2Unet)
    return net


def magnitude(x: torch.Tensor) -> float:
    return float(x.detach().square().mean().sqrt())


def test_published_net_has_the_published_size():
    """Size S on ImageNet-512 in latents ("280.2 M")."""
    with torch.device("meta"):
        net = build_denoiser(Edm2Config(), channels=4, resolution=64, condition_dim=1000)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(280.2e6, rel=1e-3)


def test_layers_keep_the_magnitude_of_their_inputs():
    torch.manual_seed(0)
    x, other = torch.randn(4, 64, 16, 16), torch.randn(4, 32, 16, 16)
    embedding = MPFourier(64)(torch.linspace(-1.0, 1.0, 4))
    assert magnitude(MPLayer(64, 96, 3)(x)[..., 1:-1, 1:-1]) == pytest.approx(1.0, abs=0.05)
    assert magnitude(MPLayer(64, 256)(embedding)) == pytest.approx(1.0, abs=0.15)
    assert magnitude(MPLayer(64, 96, 1)(x, 0.5)) == pytest.approx(0.5, abs=0.05)
    assert magnitude(mix(x, torch.randn_like(x), 0.3)) == pytest.approx(1.0, abs=0.05)
    joined = join(x, other)
    assert magnitude(joined) == pytest.approx(1.0, abs=0.05)
    assert float(joined[:, :64].square().sum() / joined[:, 64:].square().sum()) == pytest.approx(1.0, abs=0.05)


def test_training_brings_weights_back_to_unit_length_and_evaluation_leaves_them():
    torch.manual_seed(0)
    layer, x = MPLayer(6, 4, 3), torch.randn(2, 6, 5, 5)
    with torch.no_grad():
        layer.weight *= 7.0
    long = layer.weight.detach().clone()
    evaluated = layer.eval()(x)
    assert torch.equal(layer.weight, long)
    torch.testing.assert_close(layer.train()(x), evaluated, atol=1e-3, rtol=1e-3)
    rows = layer.weight.detach().square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(rows, torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(layer.weight.detach(), normalise(long))


@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize("resample", [None, "down", "up"])
def test_block_follows_its_equations(decoder: bool, resample: str | None):
    """Karras et al. 2024, figure 21, in float64."""
    torch.manual_seed(0)
    inputs = 8 if resample is None else 16
    block = Edm2Block(inputs, 16, width=12, decoder=decoder, dropout=0.0, heads=2, resample=resample).eval()
    with torch.no_grad():
        block.gain.fill_(0.7)
    x, embedding = 3.0 * torch.randn(2, inputs, 4, 4), torch.randn(2, 12)

    def layer(part: MPLayer | None, value: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        if part is None:
            return value
        weight = part.weight.detach().double()
        rows = weight.flatten(1)
        kernel = (unit(rows, 1) * gain / math.sqrt(rows.shape[1])).view(weight.shape)
        return value @ kernel.T if kernel.ndim == 2 else F.conv2d(value, kernel, padding=kernel.shape[-1] // 2)

    def silu(value: torch.Tensor) -> torch.Tensor:
        return value * value.sigmoid() / 0.596

    def unit(value: torch.Tensor, dim: int) -> torch.Tensor:
        return value / (1e-4 + value.square().mean(dim, keepdim=True).sqrt())

    def mixed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (0.7 * a + 0.3 * b) / math.sqrt(0.7**2 + 0.3**2)

    value = x.double()
    if resample == "down":
        value = F.avg_pool2d(value, 2)
    elif resample == "up":
        value = value.repeat_interleave(2, 2).repeat_interleave(2, 3)
    if not decoder:
        value = unit(layer(block.residual, value), 1)
    hidden = layer(block.conv_in, silu(value))
    told = layer(block.embedding, embedding.double(), 0.7) + 1.0
    hidden = layer(block.conv_out, silu(hidden * told[:, :, None, None]))
    value = mixed(layer(block.residual, value) if decoder else value, hidden)
    attended = []
    for q, k, v in zip(*(part.chunk(2, 1) for part in layer(block.qkv, value).flatten(2).chunk(3, 1)), strict=True):
        scores = (unit(q, 1).transpose(1, 2) @ unit(k, 1) / math.sqrt(8.0)).softmax(2)
        attended.append(unit(v, 1) @ scores.transpose(1, 2))
    value = mixed(value, layer(block.out, torch.cat(attended, 1).view(value.shape)))
    torch.testing.assert_close(block(x, embedding).double(), value, atol=1e-4, rtol=1e-4)


def test_classes_count_as_much_as_the_time_and_activations_are_bounded():
    torch.manual_seed(0)
    net = small().eval()
    seen = []
    net.down[0].register_forward_hook(lambda block, given, out: seen.append((given[1], out)))
    x, t, condition = torch.randn(2, 3, 8, 8), torch.tensor([-0.5, 0.5]), torch.eye(5)[[0, 3]]
    net(x, t, condition)
    time, classes = net.time(net.fourier(t)), net.condition(condition * math.sqrt(5.0))
    torch.testing.assert_close(seen[0][0], F.silu((time + classes) / math.sqrt(2.0)) / 0.596)
    assert magnitude(seen[0][1]) == pytest.approx(1.0, abs=0.3)
    with torch.no_grad():
        net.down[0].gain.fill_(1e6)
    net(x, t, condition)
    assert float(seen[1][1].detach().abs().max()) == 256.0


def test_uncertainty_is_learnt_from_the_time_alone():
    torch.manual_seed(0)
    net, t = small().eval(), torch.tensor([-0.5, 0.5, 0.5])
    said = net.uncertainty(t)
    assert said.shape == (3,)
    assert said[1] == said[2] != said[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(net.uncertainty(t), said)
    said.sum().backward()
    assert {name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None} == {"of_uncertainty"}
    assert small(uncertainty=0).uncertainty(t) is None
    with pytest.raises(UserError, match=r"model.uncertainty=-1 must be at least 1, or 0 for none"):
        small(uncertainty=-1)


def test_counting_its_operations_leaves_the_weights():
    torch.manual_seed(0)
    net = small()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert training_flops(net, (3, 8, 8), 5) > 0
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_muon_moves_the_blocks():
    net = small()
    shapes = {name: p.ndim for name, p in net.named_parameters()}
    matrices = net.matrices()
    assert {name.split(".")[0] for name in matrices} == {"down", "middle", "up"}
    assert all(shapes[name] >= 2 for name in matrices)
