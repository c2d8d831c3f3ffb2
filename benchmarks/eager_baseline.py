"""A straightforward training loop for diffusion policies, built the way real-stanford/diffusion_policy builds its own.

It is what the training core is measured against, and shares nothing with it but the network class, whose convolutions
and layout are torch's plain ones here. Its habits are those of `policy_accel.benchmark.eager`, which makes the updates,
and: a torch DataLoader whose worker slices and pads one window at a time and is started anew each epoch; raw batches,
normalised in every step; the scheduler of diffusers for the noise. The reference's progress bar and Weights & Biases
call of every step are left out, in the baseline's favour. `reference_loop.py` runs the reference's own code instead.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from policy_accel.benchmark.eager import EagerLoop
from policy_accel.models import ConditionalUnet1d, UnetConfig, unet
from policy_accel.training.optimizer import OptimizerConfig


@dataclass(frozen=True)
class Clock:
    """Seconds: of the wall, and of CPU time of this process (a DataLoader's worker is another)."""

    wall: float
    cpu: float

    @classmethod
    def now(cls, device: torch.device) -> Self:
        """When the device is idle."""
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return cls(time.perf_counter(), time.process_time())

    def since(self, began: Clock, updates: int) -> Clock:
        """What one of `updates` took."""
        return Clock((self.wall - began.wall) / updates, (self.cpu - began.cpu) / updates)


@dataclass(frozen=True)
class BaselineConfig:
    """What both sides of a comparison have in common."""

    net: UnetConfig
    batch_size: int
    lr: float
    warmup_steps: int
    total_steps: int
    prediction: str = "epsilon"
    betas: tuple[float, float] = (0.95, 0.999)
    weight_decay: float = 1e-6
    horizon: int = 16
    n_obs_steps: int = 2
    n_action_steps: int = 8
    seed: int = 42
    device: str = "cpu"


@dataclass(frozen=True)
class Steps:
    """A replay buffer in memory: observation [N, O], action [N, A], episode_ends [E], train [E] bool."""

    observation: np.ndarray
    action: np.ndarray
    episode_ends: np.ndarray
    train: np.ndarray


class WindowDataset(Dataset):
    """One window after the other, sliced from the buffer and padded with its edge steps."""

    def __init__(self, steps: Steps, config: BaselineConfig) -> None:
        self.arrays = {"obs": steps.observation, "action": steps.action}
        self.horizon = config.horizon
        self.windows: list[tuple[int, int, int]] = []
        before, after = config.n_obs_steps - 1, config.n_action_steps - 1
        begin = 0
        for end, used in zip(steps.episode_ends.tolist(), steps.train, strict=True):
            if used:
                firsts = range(begin - before, end + after - self.horizon + 1)
                self.windows += [(first, begin, end) for first in firsts]
            begin = end

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        first, begin, end = self.windows[index]
        window = {}
        for key, array in self.arrays.items():
            part = array[max(first, begin) : min(first + self.horizon, end)]
            lead, trail = max(0, begin - first), max(0, first + self.horizon - end)
            if lead or trail:
                padded = np.zeros((self.horizon, *part.shape[1:]), dtype=part.dtype)
                padded[:lead] = part[0]
                padded[self.horizon - trail :] = part[-1]
                padded[lead : self.horizon - trail] = part
                part = padded
            window[key] = torch.from_numpy(part)
        return window


class LimitsNormalizer(nn.Module):
    """Brings every dimension of the buffer between -1 and 1."""

    scale: Tensor
    offset: Tensor

    def __init__(self, array: np.ndarray) -> None:
        super().__init__()
        low, high = array.min(0), array.max(0)
        width = np.where(high - low < 1e-4, 2.0, high - low)
        self.register_buffer("scale", torch.from_numpy(2.0 / width).float())
        self.register_buffer("offset", torch.from_numpy(-1.0 - low * 2.0 / width).float())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.offset


class EagerPolicy(nn.Module):
    """Normalisers, network and loss."""

    def __init__(self, steps: Steps, config: BaselineConfig) -> None:
        super().__init__()
        self.config = config
        self.normalizers = nn.ModuleDict(
            {"obs": LimitsNormalizer(steps.observation), "action": LimitsNormalizer(steps.action)}
        )
        self.net = ConditionalUnet1d(
            config.net,
            channels=steps.action.shape[1],
            horizon=config.horizon,
            condition_shape=(config.n_obs_steps, steps.observation.shape[1]),
        )
        self.scheduler = DDPMScheduler(
            num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", prediction_type=config.prediction
        )

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        normalized = {key: self.normalizers[key](value) for key, value in batch.items()}
        action = normalized["action"]
        condition = normalized["obs"][:, : self.config.n_obs_steps]
        noise = torch.randn(action.shape, device=action.device)
        t = torch.randint(0, self.scheduler.config.num_train_timesteps, (action.shape[0],), device=action.device)
        prediction = self.net(self.scheduler.add_noise(action, noise, t), t, condition)
        target = noise if self.config.prediction == "epsilon" else action
        loss = F.mse_loss(prediction, target, reduction="none")
        return loss.flatten(1).mean(1).mean()


def batches_of(dataset: Dataset, config: BaselineConfig) -> Iterator[dict[str, Tensor]]:
    """Batches of one epoch after the other, on the device."""
    device = torch.device(config.device)
    loader = DataLoader(
        dataset,
        batch_size=config.batch_size,
        num_workers=1,
        shuffle=True,
        pin_memory=device.type == "cuda",
        persistent_workers=False,
    )
    while True:
        for batch in loader:
            yield {key: value.to(device, non_blocking=True) for key, value in batch.items()}


def with_plain_convolutions() -> None:
    """Let the network class of this process convolve as the reference's does: over one axis, as torch lays it out."""
    plain: Any = unet
    plain.layout = lambda device: torch.contiguous_format
    for ours, torchs in ((plain.TimeConv, nn.Conv1d), (plain.TimeConvTranspose, nn.ConvTranspose1d)):
        ours.forward = lambda conv, x, torchs=torchs: torchs.forward(conv, x[:, :, 0])[:, :, None]


def run(steps: Steps, config: BaselineConfig, *, updates: int, warmup_updates: int) -> Clock:
    """Train from scratch in a process of its own; returns what one of `updates` after `warmup_updates` took."""
    with_plain_convolutions()
    torch.manual_seed(config.seed)
    device = torch.device(config.device)
    policy = EagerPolicy(steps, config).to(device)
    settings = OptimizerConfig(
        lr=config.lr, betas=list(config.betas), weight_decay=config.weight_decay, warmup_steps=config.warmup_steps
    )
    loop = EagerLoop(policy, settings, config.total_steps)
    batches = batches_of(WindowDataset(steps, config), config)
    began = Clock.now(device)
    for update in range(warmup_updates + updates):
        if update == warmup_updates:
            began = Clock.now(device)
        loop.update(policy.loss(next(batches)))
    spent = Clock.now(device).since(began, updates)
    batches.close()
    return spent
