"""Diffusion Policy's Push-T set-up, one line after the other, with plain PyTorch, diffusers and numpy.

Written from the published formulas to compare the package with. Nothing of the package is in it but the seeding of the
two generators and the names of the U-Net's weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import zarr
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from torch import Tensor

from policy_accel.training.randomness import named_generator

SEED = 42
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Trace:
    """What a training leaves: loss and learning rate of each update, the weights and their average afterwards."""

    losses: list[float]
    rates: list[float]
    live: Weights
    averaged: Weights


class PushT:
    """The replay buffer: steps, training windows and limits."""

    def __init__(self, path: Path) -> None:
        group = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r", zarr_format=2)
        self.action = group["data/action"][:]
        self.observation = np.concatenate([group["data/keypoint"][:].reshape(-1, 18), group["data/state"][:, :2]], 1)
        ends = group["meta/episode_ends"][:].tolist()
        self.episodes = list(zip([0, *ends[:-1]], ends, strict=True))
        validation = set(np.random.default_rng(42).choice(206, 4, replace=False).tolist())
        others = [episode for episode in range(206) if episode not in validation]
        self.train_episodes = sorted(others[i] for i in np.random.default_rng(42).choice(202, 90, replace=False))
        self.windows = []
        for episode in self.train_episodes:
            begin, end = self.episodes[episode]
            self.windows += [(episode, first) for first in range(-1, end - begin - 16 + 7 + 1)]

    def rows(self, window: int) -> np.ndarray:
        """Rows of the file that window number `window` shows; the edge step is repeated beyond its episode."""
        episode, first = self.windows[window]
        begin, end = self.episodes[episode]
        return begin + np.clip(np.arange(first, first + 16), 0, end - begin - 1)

    def batch(self, numbers: list[int]) -> tuple[Tensor, Tensor]:
        """Normalised actions [B, 16, 2] and observations [B, 16, 20]."""
        rows = np.stack([self.rows(number) for number in numbers])
        return normalised(self.action[rows], self.action), normalised(self.observation[rows], self.observation)


def normalised(values: np.ndarray, of: np.ndarray) -> Tensor:
    """`values` on the scale on which the minimum of `of` is -1 and the maximum 1."""
    low, high = of.min(0).astype(np.float64), of.max(0).astype(np.float64)
    return torch.from_numpy((2 * (values - low) / (high - low) - 1).astype(np.float32))


def unet(weights: Weights, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
    """The conditional U-Net of three resolutions: x [B, T, C], t [B], condition [B, D] -> [B, T, C]."""

    def convolution_block(name: str, hidden: Tensor) -> Tensor:
        kernel = weights[f"{name}.0.weight"]
        hidden = F.conv1d(hidden, kernel, weights[f"{name}.0.bias"], padding=(kernel.shape[2] - 1) // 2)
        return F.mish(F.group_norm(hidden, 8, weights[f"{name}.1.weight"], weights[f"{name}.1.bias"]))

    def residual_block(name: str, hidden: Tensor) -> Tensor:
        film = dense(f"{name}.film.1", F.mish(feature))
        channels = film.shape[1] // 2
        out = film[:, :channels, None] * convolution_block(f"{name}.first", hidden) + film[:, channels:, None]
        out = convolution_block(f"{name}.second", out)
        if f"{name}.residual.weight" in weights:
            hidden = F.conv1d(hidden, weights[f"{name}.residual.weight"], weights[f"{name}.residual.bias"])
        return out + hidden

    def dense(name: str, hidden: Tensor) -> Tensor:
        return F.linear(hidden, weights[f"{name}.weight"], weights[f"{name}.bias"])

    half = weights["step_encoder.1.weight"].shape[1] // 2
    angles = t[:, None].float() * torch.exp(torch.arange(half) * -(math.log(10_000) / (half - 1)))[None]
    feature = dense("step_encoder.1", torch.cat([torch.sin(angles), torch.cos(angles)], 1))
    feature = dense("step_encoder.3", F.mish(feature))
    if condition is not None:
        feature = torch.cat([feature, condition], 1)
    fine = residual_block("down.0.1", residual_block("down.0.0", x.permute(0, 2, 1)))
    middle = F.conv1d(fine, weights["down.0.2.weight"], weights["down.0.2.bias"], stride=2, padding=1)
    middle = residual_block("down.1.1", residual_block("down.1.0", middle))
    coarse = F.conv1d(middle, weights["down.1.2.weight"], weights["down.1.2.bias"], stride=2, padding=1)
    coarse = residual_block("down.2.1", residual_block("down.2.0", coarse))
    h = residual_block("middle.1", residual_block("middle.0", coarse))
    for name, skip in (("up.0", coarse), ("up.1", middle)):
        h = residual_block(f"{name}.1", residual_block(f"{name}.0", torch.cat([h, skip], 1)))
        h = F.conv_transpose1d(h, weights[f"{name}.2.weight"], weights[f"{name}.2.bias"], stride=2, padding=1)
    h = convolution_block("head.0", h)
    return F.conv1d(h, weights["head.1.weight"], weights["head.1.bias"]).permute(0, 2, 1)


def scheduler() -> DDPMScheduler:
    """The process of training and sampling."""
    return DDPMScheduler(
        num_train_timesteps=100,
        beta_start=0.0001,
        beta_end=0.02,
        beta_schedule="squaredcos_cap_v2",
        variance_type="fixed_small",
        clip_sample=True,
        prediction_type="epsilon",
    )


def noised(clean: Tensor, times: torch.Generator, noises: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw t [B] and noise like `clean`; also the noised sample."""
    t = torch.randint(100, (len(clean),), generator=times)
    noise = torch.randn(clean.shape, generator=noises)
    return t, noise, scheduler().add_noise(clean, noise, t)


def train(data: PushT, weights: Weights, batches: list[list[int]], *, warmup: int, steps: int, **adam: object) -> Trace:
    """Updates on the windows `batches`, from `weights`, with the observations as a global condition."""
    live = {name: value.clone().requires_grad_() for name, value in weights.items()}
    averaged = {name: value.clone() for name, value in weights.items()}
    settings = {"betas": (0.95, 0.999), "eps": 1e-8, "weight_decay": 1e-6, **adam}
    optimizer = torch.optim.AdamW(live.values(), lr=1e-4, foreach=False, fused=False, **settings)
    rate = get_scheduler("cosine", optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    times, noises = named_generator(SEED, "time"), named_generator(SEED, "noise")
    losses, rates = [], []
    for update, numbers in enumerate(batches):
        actions, observations = data.batch(numbers)
        t, noise, noisy = noised(actions, times, noises)
        loss = F.mse_loss(unet(live, noisy, t, observations[:, :2].reshape(len(numbers), 40)), noise)
        loss.backward()
        losses.append(loss.item())
        rates.append(rate.get_last_lr()[0])
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        decay = 0.0 if update < 2 else min(1 - (1 + (update - 1) / 1.0) ** -0.75, 0.9999)
        for name, value in averaged.items():
            value.mul_(decay).add_(live[name].detach(), alpha=1 - decay)
    return Trace(losses, rates, {name: value.detach() for name, value in live.items()}, averaged)


def inpainting_errors(data: PushT, weights: Weights, batch: list[int]) -> Tensor:
    """Squared errors [B, 16, 22] of the first update when the trajectory holds observations; 0 where they are given."""
    actions, observations = data.batch(batch)
    clean = torch.cat([actions, observations], 2)
    t, noise, noisy = noised(clean, named_generator(SEED, "time"), named_generator(SEED, "noise"))
    noisy[:, :2, 2:] = clean[:, :2, 2:]
    error = (unet(weights, noisy, t, None) - noise) ** 2
    error[:, :2, 2:] = 0
    return error


@torch.no_grad()
def executed_actions(data: PushT, weights: Weights, seen: Tensor, noise: Tensor, *, inpainting: bool) -> np.ndarray:
    """Actions [B, 8, 2] in px for normalised observations `seen` [B, 2, 20]; noise [B, 1 + evaluations, 16, C].

    diffusers draws the noise of its steps from a generator: give it one (`randn_tensor`) that takes noise[:, 1:].
    """
    process = scheduler()
    process.set_timesteps(noise.shape[1] - 1)
    x = noise[:, 0].clone()
    for t in process.timesteps:
        if inpainting:
            x[:, :2, 2:] = seen
        condition = None if inpainting else seen.reshape(len(seen), 40)
        x = process.step(unet(weights, x, t.expand(len(x)), condition), t, x).prev_sample
    low, high = data.action.min(0), data.action.max(0)
    return (x[:, 1:9, :2].double().numpy() + 1) / 2 * (high - low) + low
