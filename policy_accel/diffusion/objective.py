"""What the denoiser is trained on: noised input, time, target and weight, made together so that they always agree."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policy_accel.diffusion.processes import DiscreteProcess, per_sample
from policy_accel.errors import UserError, did_you_mean

TARGETS = ("epsilon", "sample", "v")


@dataclass(frozen=True)
class Noised:
    """One training example per row: x_t [B, *S], t [B] int64, target [B, *S], weight [B] or None (all ones),
    model_input [B, *S] (x_t times the process' input scale)."""

    x_t: Tensor
    t: Tensor
    target: Tensor
    weight: Tensor | None
    model_input: Tensor


def check_target(target: str) -> str:
    """Return `target` when it is one of `TARGETS`, else raise UserError with the nearest name."""
    if target not in TARGETS:
        raise UserError(f"diffusion.target '{target}' is unknown; {did_you_mean(target, TARGETS)}")
    return target


def make_noised(
    process: DiscreteProcess, x0: Tensor, noise: Tensor, t: Tensor, target: str, known: Tensor | None = None
) -> Noised:
    """Diffuse x0 [B, *S] with noise [B, *S] at t [B] and form what the denoiser must predict.

    `epsilon`: the noise. `sample`: x0. `v`: alpha_t epsilon - sigma_t x0 (Salimans & Ho 2022, section 4).
    `known`: bool, broadcastable to [B, *S]; entries that are given (in-painting) and so stay clean.
    """
    x_t = process.diffuse(x0, noise, t)
    if known is not None:
        x_t = torch.where(known, x0, x_t)
    if target == "epsilon":
        wanted = noise
    elif target == "sample":
        wanted = x0
    else:
        wanted = per_sample(process.alphas[t], x0) * noise - per_sample(process.sigmas[t], x0) * x0
    return Noised(x_t, t, wanted, None, per_sample(process.input_scales[t], x_t) * x_t)


@dataclass(frozen=True)
class Objective:
    """Denoising objective of a discrete process with uniformly drawn times (Ho et al. 2020, algorithm 1)."""

    process: DiscreteProcess
    target: str = "epsilon"

    def __post_init__(self) -> None:
        check_target(self.target)

    def to(self, device: torch.device | str) -> Objective:
        """The same objective with its tables on `device`."""
        return Objective(self.process.to(device), self.target)

    def draw(
        self,
        x0: Tensor,
        time_generator: torch.Generator,
        noise_generator: torch.Generator,
        known: Tensor | None = None,
    ) -> Noised:
        """Draw t ~ U{0 .. T-1} and epsilon ~ N(0, I) for x0 [B, *S] and noise all but its `known` entries."""
        t = torch.randint(self.process.timesteps, (x0.shape[0],), device=x0.device, generator=time_generator)
        noise = torch.randn(x0.shape, device=x0.device, dtype=x0.dtype, generator=noise_generator)
        return make_noised(self.process, x0, noise, t, self.target, known)


def weighted_squared_error(
    prediction: Tensor, target: Tensor, *, weight: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Mean of weight * (prediction - target)^2 over the masked part, a float32 scalar.

    prediction, target [B, *S]; weight [B]; mask broadcastable to [B, *S], True where the error counts. With no mask
    every element counts alike; with one the mean runs over the counted elements only.
    """
    error = (prediction.float() - target.float()).square()
    if weight is not None:
        error = per_sample(weight, error) * error
    if mask is None:
        return error.mean()
    counted = mask.to(error.dtype).expand_as(error)
    return (error * counted).sum() / counted.sum().clamp(min=1.0)
