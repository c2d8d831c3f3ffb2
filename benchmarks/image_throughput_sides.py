"""The two sides of the image benchmark: the training core's update and a plain eager loop, on the same networks.

Both are endless iterators over the losses of updates, on random bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from policy_accel.diffusion import Batch, Objective
from policy_accel.diffusion.config import DiffusionConfig
from policy_accel.models import Denoiser, ModelConfig, build_denoiser
from policy_accel.models.images import DdpmConfig, DitConfig, EdmConfig
from policy_accel.models.layout import lay_out
from policy_accel.training.devices import use_device
from policy_accel.training.ema import EMAConfig
from policy_accel.training.optimizer import OptimizerConfig
from policy_accel.training.randomness import DataOrder, Generators
from policy_accel.training.task import Draws
from policy_accel.training.update import Update

BASELINE = "baseline"
SEED = 0
LR = 2e-4
LINEAR = DiffusionConfig(schedule="linear", timesteps=1000)
EDM = DiffusionConfig(family="edm", target="edm")


@dataclass(frozen=True)
class Net:
    """A network, the shape [C, H, W] of its images, its number of classes and its diffusion."""

    config: ModelConfig
    shape: tuple[int, int, int]
    classes: int
    diffusion: DiffusionConfig


NETS = {
    ("ddpm", "published"): Net(DdpmConfig(), (3, 32, 32), 0, LINEAR),
    ("edm", "published"): Net(EdmConfig(), (3, 32, 32), 10, EDM),
    ("dit", "published"): Net(DitConfig(depth=12, width=768, heads=12), (4, 32, 32), 1000, LINEAR),
    ("ddpm", "small"): Net(DdpmConfig(channels=16), (3, 32, 32), 0, LINEAR),
    ("edm", "small"): Net(EdmConfig(channels=16, blocks=1), (3, 32, 32), 10, EDM),
    ("dit", "small"): Net(DitConfig(depth=4, width=64, heads=2), (4, 32, 32), 10, LINEAR),
}


@dataclass(frozen=True)
class Side:
    """What one process runs."""

    name: str
    net: str
    size: str
    batch: int
    images: int
    precision: str
    device: str
    threads: int
    workers: int
    compiled: bool = False
    channels_last: bool = False

    def build(self) -> Denoiser:
        """The network, with its first weights always the same."""
        net = NETS[self.net, self.size]
        torch.manual_seed(SEED)
        return build_denoiser(net.config, channels=net.shape[0], resolution=net.shape[1], condition_dim=net.classes)

    def data(self) -> tuple[Tensor, Tensor]:
        """Random images uint8 [N, C, H, W] and classes [N]."""
        generator = torch.Generator().manual_seed(SEED)
        net = NETS[self.net, self.size]
        images = torch.randint(0, 256, (self.images, *net.shape), dtype=torch.uint8, generator=generator)
        return images, torch.randint(0, max(1, net.classes), (self.images,), generator=generator)


class ResidentImages:
    """The task of the core's side."""

    groups: Tensor | None = None
    group_run = 1
    validation_samples = 0
    fingerprint = "random bytes"

    def __init__(self, side: Side) -> None:
        net = NETS[side.net, side.size]
        self.model = side.build()
        self.objective = Objective(net.diffusion.process(), net.diffusion.target)
        self.images, self.labels = side.data()
        self.one_hot = torch.eye(net.classes) if net.classes else None
        self.samples = side.images

    def to(self, device: torch.device) -> None:
        """Move everything to `device`."""
        self.model.to(device)
        self.objective = self.objective.to(device)
        self.images, self.labels = self.images.to(device), self.labels.to(device)
        self.one_hot = None if self.one_hot is None else self.one_hot.to(device)

    def batch(self, indices: Tensor, drawn: Draws) -> Batch:
        """Images `indices` [B] as x0 in [-1, 1] with their classes, one-hot."""
        condition = None if self.one_hot is None else self.one_hot[self.labels[indices]]
        return Batch(self.images[indices].float() / 127.5 - 1.0, condition=condition)

    def validation_batch(self, indices: Tensor) -> Batch:
        """There are none."""
        raise AssertionError("random bytes have no validation part")

    def evaluate(self, model: Denoiser, report: Callable[[str], None], *, step: int) -> dict[str, Any] | None:
        """Random bytes have no score."""
        return None


def core_updates(side: Side, device: torch.device) -> Iterator[Tensor]:
    """The losses of the core's updates, one each time."""
    use_device(device, threads=side.threads, matmul_precision="high")
    task = ResidentImages(side)
    task.to(device)
    lay_out(task.model, device, str(side.channels_last).lower())
    update = Update(
        task,
        DataOrder(task.samples, side.batch, SEED, device),
        OptimizerConfig(lr=LR, betas=[0.9, 0.999], weight_decay=0.0, schedule="constant", warmup_steps=0),
        EMAConfig(max_decay=0.9999),
        steps=10**9,
        generators=Generators(SEED, device),
        precision=side.precision,
        compiled=side.compiled,
    )
    step = 0
    while True:
        yield update(step)[0]
        step += 1


class ByteImages(Dataset):
    """One image after the other, as a usual script's transform gives it."""

    def __init__(self, side: Side) -> None:
        self.images, self.labels = side.data()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index].float() / 127.5 - 1.0, self.labels[index]


def baseline_updates(side: Side, device: torch.device) -> Iterator[Tensor]:
    """The losses of the plain loop's updates, one each time."""
    from diffusers import DDPMScheduler, UNet2DModel
    from diffusers.training_utils import EMAModel

    torch.set_num_threads(side.threads)
    net = NETS[side.net, side.size]
    torch.manual_seed(SEED)
    if isinstance(net.config, DdpmConfig):
        width = net.config.channels
        model: nn.Module = UNet2DModel(
            sample_size=net.shape[1],
            block_out_channels=tuple(width * multiplier for multiplier in net.config.multipliers),
            layers_per_block=net.config.blocks,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=None,
            flip_sin_to_cos=False,
            freq_shift=1,
            downsample_padding=0,
            norm_eps=1e-6,
            norm_num_groups=min(32, width // 4),
            dropout=net.config.dropout,
        )
    else:
        model = side.build()
    model.to(device).train()
    ema = EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True)
    ema.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.999), weight_decay=0.0)
    scheduler = DDPMScheduler(1000, beta_schedule="linear")
    loader = DataLoader(
        ByteImages(side),
        batch_size=side.batch,
        shuffle=True,
        drop_last=True,
        num_workers=side.workers,
        pin_memory=device.type == "cuda",
        persistent_workers=side.workers > 0,
    )
    cast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=side.precision == "bf16")
    while True:
        for images, labels in loader:
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            noise = torch.randn_like(images)
            t = torch.randint(0, 1000, (len(images),), device=device)
            noisy = scheduler.add_noise(images, noise, t)
            with cast:
                if isinstance(model, UNet2DModel):
                    predicted = model(noisy, t).sample
                else:
                    classes = F.one_hot(labels, net.classes).float() if net.classes else None
                    predicted = model(noisy, t, classes)
                loss = F.mse_loss(predicted.float(), noise)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            ema.step(model.parameters())
            loss.item()
            yield loss.detach()
