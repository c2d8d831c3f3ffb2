from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import resnet18

from policy_accel.errors import UserError
from policy_accel.models.encoders import EncoderConfig, ResNetConfig
from policy_accel.models.encoders.resnet import Projection, ResNet18, ResNetEncoder
from policy_accel.models.encoders.spatial_softmax import SpatialSoftmax


def randomise(model: nn.Module) -> None:
    """Give every parameter a value that shows (group norms start at 1 and 0)."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def test_the_trunk_is_torchvisions_resnet18_with_group_norm():
    ours = ResNet18(3, width=64, group_channels=16)
    reference = resnet18(weights=None, norm_layer=lambda channels: nn.GroupNorm(channels // 16, channels))
    reference = nn.Sequential(*list(reference.children())[:-2])
    randomise(ours)
    parameters = list(ours.parameters())
    assert [p.shape for p in parameters] == [p.shape for p in reference.parameters()]
    for copied, parameter in zip(reference.parameters(), parameters, strict=True):
        copied.data.copy_(parameter.data)
    images = torch.rand(2, 3, 84, 84) * 2 - 1
    maps = ours(images)
    assert maps.shape == (2, 512, 3, 3)
    torch.testing.assert_close(maps, reference(images), rtol=1e-4, atol=1e-4)


class Strides(TorchDispatchMode):
    """The strides of all convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.seen.append(args[3])
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(("channels", "stride"), [(8, [1, 1]), (15, [1, 1]), (16, [2, 2])])
def test_few_channels_are_projected_without_a_stride_of_the_convolution(channels, stride):
    """oneDNN's gradient with a stride writes beyond its memory from 48 px on, or with fewer on several threads."""
    layer, x = Projection(channels, 3, 1, 2), torch.randn(2, 9, 8, channels).permute(0, 3, 1, 2).requires_grad_()
    with Strides() as strides:
        found = layer(x)
    assert strides.seen == [stride]
    again = x.detach().double().requires_grad_()
    weight, bias = (p.detach().double().requires_grad_() for p in layer.parameters())
    expected = nn.functional.conv2d(again, weight, bias, stride=2)
    torch.testing.assert_close(found, expected.float())
    found.square().sum().backward()
    expected.square().sum().backward()
    for one, other in zip((x, *layer.parameters()), (again, weight, bias), strict=True):
        torch.testing.assert_close(one.grad, other.grad.float(), rtol=1e-4, atol=1e-4)


def test_spatial_softmax_is_the_expectation_of_the_coordinates():
    pool = SpatialSoftmax(4, (3, 5), 6)
    x = torch.randn(2, 4, 3, 5)
    found = pool(x).unflatten(1, (6, 2))
    logits = torch.einsum("bchw,kc->bkhw", x, pool.maps.weight[:, :, 0, 0]) + pool.maps.bias[:, None, None]
    expected = torch.zeros(2, 6, 2)
    for b in range(2):
        for k in range(6):
            weights = logits[b, k].exp()
            for row in range(3):
                for column in range(5):
                    share = weights[row, column] / weights.sum()
                    expected[b, k] += share * torch.tensor([-1 + 2 * column / 4, -1 + 2 * row / 2])
    torch.testing.assert_close(found, expected)


def test_spatial_softmax_finds_a_peak():
    pool = SpatialSoftmax(1, (4, 6), 1)
    nn.init.constant_(pool.maps.weight, 1000.0)
    x = torch.zeros(1, 1, 4, 6)
    x[0, 0, 3, 0] = 1.0
    torch.testing.assert_close(pool(x), torch.tensor([[-1.0, 1.0]]))


def test_spatial_softmax_agrees_with_robomimic():
    from robomimic.models.base_nets import SpatialSoftmax as Reference

    ours, reference = SpatialSoftmax(8, (3, 4), 5), Reference([8, 3, 4], num_kp=5, temperature=1.0)
    reference.nets.load_state_dict(ours.maps.state_dict())
    x = torch.randn(3, 8, 3, 4)
    torch.testing.assert_close(ours(x), reference(x).flatten(1))


def test_spatial_softmax_keeps_its_digits_under_autocast():
    pool = SpatialSoftmax(4, (3, 3), 8)
    x = torch.randn(2, 4, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pool(x)
    assert found.dtype == torch.float32
    weights = pool.maps.to(torch.bfloat16)(x.bfloat16()).flatten(2).float().softmax(-1)
    torch.testing.assert_close(found.unflatten(1, (8, 2))[:, :, 0], (weights * pool.grid_x).sum(-1), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("side", "map_side"), [(33, 2), (64, 2), (65, 3), (76, 3), (84, 3), (96, 3), (97, 4)])
def test_the_pooling_fits_every_size_of_frame(side, map_side):
    encoder = ResNetEncoder(
        EncoderConfig(resnet=ResNetConfig(width=16, keypoints=4), feature_dim=7), size=(side, 96), channels=1
    )
    images = torch.zeros(1, 1, side, 96)
    assert encoder.trunk(images).shape == (1, 128, map_side, 3)
    assert encoder(images).shape == (1, 7)


def test_frames_with_one_position_left_are_refused():
    with pytest.raises(UserError, match=r"of 32 x 96 px one position is left"):
        ResNetEncoder(EncoderConfig(), size=(32, 96), channels=3)


def test_every_size_reaches_its_layer():
    config = EncoderConfig(resnet=ResNetConfig(width=24, group_channels=8, keypoints=5), feature_dim=11)
    encoder = ResNetEncoder(config, size=(84, 84), channels=4)
    assert encoder.trunk.conv1.weight.shape == (24, 4, 7, 7)
    groups = {(m.num_channels, m.num_groups) for m in encoder.modules() if isinstance(m, nn.GroupNorm)}
    assert groups == {(24, 3), (48, 6), (96, 12), (192, 24)}
    assert encoder.pool.maps.weight.shape == (5, 192, 1, 1)
    assert encoder.head.weight.shape == (11, 10)
