"""Noise schedules: the cumulative signal level alpha_bar_t of a discrete diffusion, as float64 tables."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from policy_accel.errors import check_choice

LINEAR = ("linear", "scaled_linear")
"""Which take the betas that they begin and end with."""
SCHEDULES = (*LINEAR, "squaredcos_cap_v2")
MAX_BETA = 0.999
BETA_START, BETA_END = 1e-4, 0.02  # of Ho et al. 2020, section 4


def alpha_bar_table(
    schedule: str, timesteps: int, *, beta_start: float = BETA_START, beta_end: float = BETA_END
) -> Tensor:
    """Cumulative products alpha_bar_t = prod_{s<=t} (1 - beta_s), [timesteps] float64, decreasing, in (0, 1).

    `linear`: beta grows linearly from `beta_start` to `beta_end` (Ho et al. 2020, section 4).
    `scaled_linear`: sqrt(beta) grows linearly from sqrt(beta_start) to sqrt(beta_end) (Rombach et al. 2022).
    `squaredcos_cap_v2`: alpha_bar(u) = cos^2((u + 0.008) / 1.008 * pi / 2), beta capped at 0.999
    (Nichol & Dhariwal 2021, equation 17); `beta_start` and `beta_end` play no part, as in diffusers.

    Raises:
        ValueError: unknown schedule, fewer than one timestep, or betas outside 0 < beta_start <= beta_end < 1.
    """
    if timesteps < 1:
        raise ValueError(f"timesteps={timesteps} must be at least 1.")
    check_choice("schedule", schedule, SCHEDULES)
    if schedule in LINEAR:
        if not 0.0 < beta_start <= beta_end < 1.0:
            raise ValueError(
                f"beta_start={beta_start} and beta_end={beta_end} must satisfy 0 < beta_start <= beta_end < 1."
            )
        beta = torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64)
        if schedule == "scaled_linear":
            beta = torch.linspace(beta_start**0.5, beta_end**0.5, timesteps, dtype=torch.float64).square()
    else:
        u = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
        alpha_bar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        beta = (1.0 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=MAX_BETA)
    return torch.cumprod(1.0 - beta, dim=0)


def alpha_bar_of(betas: Tensor, argument: str = "betas") -> Tensor:
    """Cumulative products alpha_bar_t = prod_{s<=t} (1 - beta_s) of betas [T], [T] float64.

    Raises:
        ValueError: no betas, or one outside 0 < beta < 1 (the last may be 1); the message names the `argument`.
    """
    betas = betas.double()
    if betas.ndim != 1 or len(betas) == 0:
        raise ValueError(f"{argument}: it must be a list of numbers, not of the shape {tuple(betas.shape)}.")
    wrong = ~((betas > 0.0) & (betas < 1.0))
    wrong[-1] &= betas[-1] != 1.0
    if bool(wrong.any()):
        index = int(wrong.nonzero()[0])
        raise ValueError(f"{argument}: number {index} is {float(betas[index]):g}, which must lie between 0 and 1.")
    return torch.cumprod(1.0 - betas, dim=0)


def zero_terminal_snr(alpha_bar: Tensor) -> Tensor:
    """alpha_bar [T] with its last value at 0, its first one kept and its roots shifted in between, [T] float64
    (Lin et al. 2023, algorithm 1).

    Raises:
        ValueError: fewer than 2 values.
    """
    if len(alpha_bar) < 2:
        raise ValueError(f"alpha_bar must have 2 values or more to end at 0, not {len(alpha_bar)}.")
    root = alpha_bar.double().sqrt()
    return ((root - root[-1]) * (root[0] / (root[0] - root[-1]))).square()
