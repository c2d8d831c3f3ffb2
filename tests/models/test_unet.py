"""The 1-D U-Net computes with two axes what it is defined by with one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from policy_accel.models import UnetConfig, build_denoiser
from policy_accel.models import unet as module
from policy_accel.models.unet import TimeConv, TimeConvTranspose, layout


@pytest.mark.parametrize("largest", [2**18, 100])
@pytest.mark.parametrize(
    ("ours", "torchs", "options"),
    [
        (TimeConv, nn.Conv1d, {"kernel_size": 5, "padding": 2}),
        (TimeConv, nn.Conv1d, {"kernel_size": 3, "padding": 1, "stride": 2}),
        (TimeConv, nn.Conv1d, {"kernel_size": 1}),
        (TimeConvTranspose, nn.ConvTranspose1d, {"kernel_size": 4, "padding": 1, "stride": 2}),
    ],
)
def test_a_convolution_over_time_is_torchs(
    ours: type, torchs: type, options: dict[str, Any], largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_ON_CPU", largest)  # 12 * 21 weights: whole, or in three parts
    torch.manual_seed(0)
    conv, expected = ours(12, 21, **options).double(), torchs(12, 21, **options).double()
    conv.load_state_dict(expected.state_dict())
    x = torch.randn(3, 12, 8, dtype=torch.float64, requires_grad=True)
    of_x = conv(x[:, :, None])[:, :, 0], expected(x)
    torch.testing.assert_close(*of_x)
    weights = torch.randn_like(of_x[0])
    ours_and_torchs = (
        torch.autograd.grad((y * weights).sum(), [x, layer.weight, layer.bias])
        for y, layer in zip(of_x, (conv, expected), strict=True)
    )
    torch.testing.assert_close(*ours_and_torchs)


def test_a_large_convolution_goes_in_parts_on_the_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    conv2d = module.F.conv2d

    def counted(x: Tensor, weight: Tensor, *others: Any) -> Tensor:
        calls.append(weight.shape[0])
        return conv2d(x, weight, *others)

    monkeypatch.setattr(module.F, "conv2d", counted)
    TimeConv(1024, 1024, 1)(torch.zeros(1, 1024, 1, 1))
    assert calls == [256] * 4
    TimeConv(1024, 1024, 1, device="meta")(torch.zeros(1, 1024, 1, 1, device="meta"))
    assert calls[4:] == [1024]


def test_activations_lie_channels_last_on_the_cpu_alone() -> None:
    assert layout(torch.device("cpu")) is torch.channels_last
    assert layout(torch.device("cuda", 0)) is torch.contiguous_format
    net, strides = build_denoiser(UnetConfig(down_dims=[16, 32]), channels=2, horizon=16, condition_shape=None), []
    for block in net.modules():
        if isinstance(block, nn.GroupNorm):
            block.register_forward_hook(lambda _, __, y: strides.append(y.stride(1)))
    net(torch.randn(2, 16, 2), torch.tensor([3, 4]))
    assert len(strides) == 17
    assert set(strides) == {1}


def test_the_net_is_that_of_one_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = UnetConfig(down_dims=[16, 32, 64], kernel_size=3, step_embedding_dim=16)
    net = build_denoiser(config, channels=2, horizon=16, condition_shape=(2, 5))
    batch = torch.randn(4, 16, 2), torch.randint(100, (4,)), torch.randn(4, 2, 5)
    prediction = net(*batch)
    monkeypatch.setattr(TimeConv, "forward", lambda conv, x: nn.Conv1d.forward(conv, x[:, :, 0])[:, :, None])
    monkeypatch.setattr(
        TimeConvTranspose, "forward", lambda conv, x: nn.ConvTranspose1d.forward(conv, x[:, :, 0])[:, :, None]
    )
    torch.testing.assert_close(prediction, net(*batch), rtol=0, atol=2e-6)
