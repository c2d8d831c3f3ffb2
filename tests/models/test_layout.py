"""The order of images in memory, on the simulated CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from support.simulated_cuda import CUDA, SimulatedCuda
from torch import Tensor, nn

from policy_accel.models import build_denoiser
from policy_accel.models.encoders.config import EncoderConfig
from policy_accel.models.encoders.observation import ObservationEncoder
from policy_accel.models.images import DdpmConfig, EdmConfig
from policy_accel.models.layout import laid_as, lay_out

SIZES = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention_resolutions": [8]}
Net = tuple[nn.Module, Callable[[nn.Module], Tensor]]


def unet(config: DdpmConfig | EdmConfig, channels: int) -> Net:
    x, t = torch.randn(2, channels, 16, 16), torch.tensor([0.1, 0.2])
    return build_denoiser(config, channels=channels, resolution=16), lambda net: net(x.to(CUDA), t.to(CUDA))


def encoder() -> Net:
    config = EncoderConfig(crop=36)
    config.resnet.width, config.resnet.group_channels = 8, 4
    frames = torch.zeros(1, 2, 40, 40, 3, dtype=torch.uint8)
    net = ObservationEncoder(config, images={"eye": (40, 40, 3)}, state_dim=0)
    return net, lambda net: net({"state": torch.zeros(1, 2, 0).to(CUDA), "eye": frames.to(CUDA)})


NETS: dict[str, Callable[[], Net]] = {
    "ddpm": lambda: unet(DdpmConfig(**SIZES), 3),
    "ddpm, grey": lambda: unet(DdpmConfig(**SIZES), 1),
    "ddpm++": lambda: unet(EdmConfig(**SIZES), 3),
    "ncsn++": lambda: unet(EdmConfig(**SIZES, encoder="residual", resample_filter=[1, 3, 3, 1]), 3),
    "resnet18": encoder,
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(
    ("choice", "order"), [("auto", torch.channels_last), ("false", torch.contiguous_format)], ids=["last", "first"]
)
def test_every_convolution_gets_weights_and_images_in_one_order(
    name: str, choice: str, order: torch.memory_format
) -> None:
    net, call = NETS[name]()
    seen: list[tuple[str, bool, bool]] = []

    def look(part: str, weight: Tensor, image: Tensor) -> None:
        seen.append((part, *(tensor.is_contiguous(memory_format=order) for tensor in (weight, image))))

    with SimulatedCuda():
        lay_out(net, CUDA, choice)
        for part, module in net.named_modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(partial(lambda part, net, given: look(part, net.weight, *given), part))
        call(net).square().sum().backward()
        gradients = [p.grad for p in net.parameters() if p.dim() == 4 and p.grad is not None]
        assert all(gradient.is_contiguous(memory_format=order) for gradient in gradients)
    assert len(gradients) == len(seen) > 5
    assert {(weight, image) for _, weight, image in seen} == {(True, True)}, seen


def test_the_cpu_keeps_what_it_has() -> None:
    conv = nn.Conv2d(3, 4, 3)
    lay_out(conv, "cpu")
    assert conv.weight.is_contiguous()
    images = torch.randn(2, 3, 5, 5)
    for given in (images, images.to(memory_format=torch.channels_last)):
        assert laid_as(given, conv.weight) is given
    lay_out(conv, "cpu", "true")
    assert laid_as(images, conv.weight).stride(1) == conv.weight.stride(1) == 1
