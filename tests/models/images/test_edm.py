"""DDPM++ and NCSN++: sizes, first weights, condition, refusals, and NCSN++'s parts against their equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from policy_accel.errors import UserError
from policy_accel.models import build_denoiser
from policy_accel.models.images import EdmConfig
from policy_accel.models.images.edm import FourierEmbedding, Pyramid
from policy_accel.models.images.edm import ResidualBlock as EdmBlock

NCSNPP = {"embedding": "fourier", "time_multiplier": 2, "encoder": "residual", "resample_filter": [1, 3, 3, 1]}


@pytest.mark.parametrize(
    ("settings", "resolution", "condition_dim", "parameters"),
    [
        # With 10 classes and 9 augmentation parameters: 19 more rows of 128 (256 for NCSN++), and a bias.
        ({}, 32, 0, 55_732_739),
        ({}, 32, 19, 55_732_739 + 20 * 128),
        (NCSNPP, 32, 0, 56_395_523),
        (NCSNPP, 32, 19, 56_395_523 + 20 * 256),
        ({"multipliers": [1, 2, 2, 2], "dropout": 0.05}, 64, 9, 61_804_419 + 9 * 128),
    ],
)
def test_published_nets_have_the_published_sizes(settings, resolution, condition_dim, parameters):
    with torch.device("meta"):
        sizes = {"condition_dim": condition_dim, "classes": 10 if condition_dim > 9 else 0}
        net = build_denoiser(EdmConfig(**settings), channels=3, resolution=resolution, **sizes)
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_pyramid_is_a_convolution_and_then_a_filter():
    torch.manual_seed(0)
    pyramid = Pyramid(3, 8, [1, 3, 3, 1])
    image = torch.randn(2, 3, 16, 16)
    wide = nn.functional.conv2d(image, pyramid.conv.weight, pyramid.conv.bias, padding=2)
    row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8.0
    expected = torch.zeros(2, 8, 8, 8)
    for i in range(4):
        for j in range(4):
            expected += row[i] * row[j] * wide[:, :, i : i + 16 : 2, j : j + 16 : 2]
    torch.testing.assert_close(pyramid(image), expected, atol=1e-5, rtol=1e-5)


def test_residual_encoder_adds_the_image_at_every_resolution():
    torch.manual_seed(0)
    net = build_denoiser(
        EdmConfig(channels=8, multipliers=[1, 1, 1], blocks=1, attention_resolutions=[], **NCSNPP),
        channels=2,
        resolution=16,
    )
    calls = []
    for layer in net.down:
        layer.register_forward_hook(lambda module, given, out: calls.append((module, given[0], out)))
    x = torch.randn(2, 2, 16, 16)
    net(x, torch.tensor([0.1, -0.4]))
    image = x
    for index, (module, given, out) in enumerate(calls):
        if isinstance(module, Pyramid):
            torch.testing.assert_close(given, image)
            image = (calls[index - 1][2] + out) / math.sqrt(2.0)
            torch.testing.assert_close(calls[index + 1][1], image)
    assert [isinstance(module, Pyramid) for module, _, _ in calls] == [False, False, True, False, False, True, False]


def test_fourier_embedding_follows_its_formula():
    torch.manual_seed(0)
    embed = FourierEmbedding(4096)
    t = torch.tensor([-1.2, 0.7])
    angles = 2 * math.pi * t[:, None].double() * embed.frequencies.double()
    torch.testing.assert_close(embed(t), torch.cat([angles.sin(), angles.cos()], 1).float(), atol=1e-4, rtol=0)
    assert embed.frequencies.std().item() == pytest.approx(16.0, rel=0.05)
    assert "frequencies" in embed.state_dict()


def test_condition_is_added_before_the_embedding_is_mixed():
    torch.manual_seed(0)
    net = build_denoiser(
        EdmConfig(channels=8, multipliers=[1, 1], blocks=1, attention_resolutions=[], dropout=0.0),
        channels=1,
        resolution=8,
        condition_dim=5,
        classes=3,
    )
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    x, t = torch.randn(1, 1, 8, 8), torch.tensor([0.2])
    told = net(x, t, torch.tensor([[0.0, 1.0, 0.0, 0.5, -2.0]]))
    with torch.no_grad():  # the class is multiplied by the root of the number of classes, and has a bias
        classes, others = net.condition.classes.weight, net.condition.others.weight
        added = math.sqrt(3) * classes[:, 1] + 0.5 * others[:, 0] - 2.0 * others[:, 1]
        net.embed[0].bias += net.embed[0].weight @ added
    torch.testing.assert_close(net(x, t), told)
    torch.testing.assert_close(net(x, t, torch.zeros(1, 5)), told)
    with pytest.raises(ValueError, match="built without one"):
        build_denoiser(EdmConfig(channels=8), channels=1, resolution=32)(x, t, torch.zeros(1, 5))


def test_weights_of_earlier_versions_had_one_matrix_for_all_that_is_told():
    torch.manual_seed(0)
    net = build_denoiser(EdmConfig(channels=8), channels=1, resolution=32, condition_dim=5, classes=3)
    state, weight = net.state_dict(), torch.randn(8, 5)
    old = {name: tensor for name, tensor in state.items() if not name.startswith("condition.")}
    net.load_state_dict({**old, "condition.weight": weight})
    told = torch.randn(2, 5)
    torch.testing.assert_close(net.condition(told), told @ weight.T)


def test_weights_start_as_published():
    torch.manual_seed(0)
    net = build_denoiser(EdmConfig(channels=64, blocks=1), channels=3, resolution=32, condition_dim=69, classes=60)
    block = next(block for block in net.down if isinstance(block, EdmBlock) and block.attention is not None)
    for weight, variance in (
        (block.conv_in.weight, 2 / (9 * 128 + 9 * 128)),
        (block.conv_out.weight, 1e-10 * 2 / (9 * 128 + 9 * 128)),
        (block.attention.qkv.weight, 0.2 * 2 / (128 + 384)),
        (block.attention.out.weight, 1e-10 * 2 / (128 + 128)),
        (net.output.weight, 1e-10 * 2 / (9 * 128 + 9 * 3)),
        (net.condition.classes.weight, 2 / (60 + 64)),
        (net.condition.others.weight, 2 / (9 + 64)),
    ):
        assert weight.var().item() == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"embedding": "fourrier"}, "model.embedding 'fourrier' is unknown; did you mean 'fourier'"),
        ({"encoder": "skip"}, "model.encoder 'skip' is unknown"),
        ({"resample_filter": [1, 2, 1]}, r"model.resample_filter=\[1, 2, 1\] must be an even number"),
        ({"resample_filter": [1, -1]}, "with a positive sum"),
        ({"encoder": "residual", "multipliers": [2], "attention_resolutions": []}, "no effect with one resolution"),
        ({"time_multiplier": 0}, "model.time_multiplier=0 must be at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        build_denoiser(EdmConfig(channels=8, **settings), channels=3, resolution=32)
