"""The networks of LeRobot and Diffusion Policy as formulas on tensors by their names, and such tensors at random."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers.schedulers.scheduling_ddim
import diffusers.schedulers.scheduling_ddpm
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Naming:
    """What the two libraries call differently in the same U-Net."""

    first: str
    second: str
    resampling: str


LEROBOT, STANFORD = Naming("conv1", "conv2", ""), Naming("blocks.0", "blocks.1", ".conv")


class Random:
    """Tensors whose numbers follow from a seed."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.tensors: Tensors = {}

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def add(self, name: str, *shape: int) -> None:
        """A weight of that shape and its bias."""
        fan = math.prod(shape[1:])
        self.tensors[f"{name}.weight"] = self.normal(*shape) / math.sqrt(fan)
        self.tensors[f"{name}.bias"] = 0.1 * self.normal(shape[0])

    def norm(self, name: str, size: int) -> None:
        self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"] = 1 + 0.1 * self.normal(size), self.normal(size)


def unet_tensors(
    naming: Naming, channels: int, condition: int, dims: Sequence[int] = (8, 16), *, film_scale: bool = True
) -> Tensors:
    """Weights of a U-Net with kernels of 3 and a time in 8 numbers."""
    random, step = Random(), 8
    random.add("diffusion_step_encoder.1", 4 * step, step)
    random.add("diffusion_step_encoder.3", step, 4 * step)

    def block(name: str, size: int, out: int) -> None:
        for part, width in ((naming.first, size), (naming.second, out)):
            random.add(f"{name}.{part}.block.0", out, width, 3)
            random.norm(f"{name}.{part}.block.1", out)
        random.add(f"{name}.cond_encoder.1", out * (2 if film_scale else 1), step + condition)
        if size != out:
            random.add(f"{name}.residual_conv", out, size, 1)

    for i, (size, out) in enumerate(zip((channels, *dims), dims, strict=False)):
        block(f"down_modules.{i}.0", size, out)
        block(f"down_modules.{i}.1", out, out)
        if i < len(dims) - 1:
            random.add(f"down_modules.{i}.2{naming.resampling}", out, out, 3)
    for i in range(2):
        block(f"mid_modules.{i}", dims[-1], dims[-1])
    for i, (out, size) in enumerate(zip(dims[-2::-1], dims[:0:-1], strict=True)):
        block(f"up_modules.{i}.0", 2 * size, out)
        block(f"up_modules.{i}.1", out, out)
        random.add(f"up_modules.{i}.2{naming.resampling}", out, out, 4)
    random.add("final_conv.0.block.0", dims[0], dims[0], 3)
    random.norm("final_conv.0.block.1", dims[0])
    random.add("final_conv.1", channels, dims[0], 1)
    return random.tensors


def unet(weights: Tensors, naming: Naming, x: Tensor, t: int, condition: Tensor | None, groups: int = 8) -> Tensor:
    """Its prediction [B, T, C] for x [B, T, C] and condition [B, D]."""

    def dense(name: str, hidden: Tensor) -> Tensor:
        return F.linear(hidden, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def convolution(name: str, hidden: Tensor, groups: int = groups) -> Tensor:
        hidden = F.conv1d(hidden, weights[f"{name}.block.0.weight"], weights[f"{name}.block.0.bias"], padding=1)
        scale, shift = weights[f"{name}.block.1.weight"], weights[f"{name}.block.1.bias"]
        return F.mish(F.group_norm(hidden, groups, scale, shift))

    def block(name: str, hidden: Tensor) -> Tensor:
        out = convolution(f"{name}.{naming.first}", hidden)
        film = dense(f"{name}.cond_encoder.1", F.mish(feature))[:, :, None]
        channels = out.shape[1]
        out = out * film[:, :channels] + film[:, channels:] if film.shape[1] > channels else out + film
        if f"{name}.residual_conv.weight" in weights:
            kernel, bias = weights[f"{name}.residual_conv.weight"], weights[f"{name}.residual_conv.bias"]
            hidden = F.conv1d(hidden, kernel, bias)
        return convolution(f"{name}.{naming.second}", out) + hidden

    half = weights["diffusion_step_encoder.1.weight"].shape[1] // 2
    angles = torch.full((len(x), 1), float(t)) * torch.exp(torch.arange(half) * -(math.log(10_000) / (half - 1)))
    feature = dense("diffusion_step_encoder.1", torch.cat([angles.sin(), angles.cos()], 1))
    feature = dense("diffusion_step_encoder.3", F.mish(feature))
    if condition is not None:
        feature = torch.cat([feature, condition], 1)
    h, skips, level = x.transpose(1, 2), [], 0
    while f"down_modules.{level}.0.cond_encoder.1.weight" in weights:
        h = block(f"down_modules.{level}.1", block(f"down_modules.{level}.0", h))
        skips.append(h)
        down = f"down_modules.{level}.2{naming.resampling}"
        if f"{down}.weight" in weights:
            h = F.conv1d(h, weights[f"{down}.weight"], weights[f"{down}.bias"], stride=2, padding=1)
        level += 1
    h = block("mid_modules.1", block("mid_modules.0", h))
    for i in range(level - 1):
        h = block(f"up_modules.{i}.1", block(f"up_modules.{i}.0", torch.cat([h, skips.pop()], 1)))
        up = f"up_modules.{i}.2{naming.resampling}"
        h = F.conv_transpose1d(h, weights[f"{up}.weight"], weights[f"{up}.bias"], stride=2, padding=1)
    h = convolution("final_conv.0", h, 8)
    return F.conv1d(h, weights["final_conv.1.weight"], weights["final_conv.1.bias"]).transpose(1, 2)


class PictureEncoder(nn.Module):
    """torchvision's resnet18, spatial softmax, a linear map and what is positive of it."""

    def __init__(self, size: tuple[int, int], keypoints: int, *, group_norm: bool) -> None:
        super().__init__()
        norm = (lambda width: nn.GroupNorm(width // 16, width)) if group_norm else nn.BatchNorm2d
        self.size = size
        self.backbone = nn.Sequential(*list(torchvision.models.resnet18(norm_layer=norm).children())[:-2])
        self.maps = nn.Conv2d(512, keypoints, 1)
        self.out = nn.Linear(2 * keypoints, 2 * keypoints)
        random = torch.Generator().manual_seed(3)
        for name, buffer in self.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand(buffer.shape, generator=random) + 0.5)

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """Features of the centre of normalised frames [N, C, H, W]."""
        maps = self.maps(self.backbone(torchvision.transforms.functional.center_crop(frames, list(self.size))))
        y, x = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in maps.shape[2:]), indexing="ij")
        share = maps.flatten(2).softmax(-1)
        points = torch.stack([(share * x.flatten()).sum(-1), (share * y.flatten()).sum(-1)], -1)
        return self.out(points.flatten(1)).relu()


@pytest.fixture
def chosen_noise(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The noise that diffusers' schedulers will draw, in order."""
    queue: list[Tensor] = []
    for module in (diffusers.schedulers.scheduling_ddpm, diffusers.schedulers.scheduling_ddim):
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: queue.pop(0))
    return queue


def scheduler(kind: str, **settings: Any) -> Any:
    """diffusers' scheduler of Diffusion Policy."""
    made = {"ddpm": diffusers.DDPMScheduler, "ddim": diffusers.DDIMScheduler}[kind]
    common = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2", "beta_start": 1e-4, "beta_end": 0.02}
    return made(**{**common, "clip_sample": True, "prediction_type": "epsilon", **settings})


def sampled(scheduler: Any, steps: int, noise: Iterator[Tensor] | Any, network: Any, queue: list[Tensor]) -> Tensor:
    """The trajectory that `network` (x, t) makes of noise [B, draws, T, C]."""
    x = noise[:, 0]
    queue[:] = list(noise[:, 1:].unbind(1))
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, int(t)), t, x).prev_sample
    return x
