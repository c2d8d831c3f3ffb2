"""Noise schedules: the cumulative signal level alpha_bar_t of a discrete diffusion, as float64 tables."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from policy_accel.errors import check_choice

SCHEDULES = ("linear", "squaredcos_cap_v2")
MAX_BETA = 0.999
BETA_START, BETA_END = 1e-4, 0.02  # of Ho et al. 2020, section 4


def alpha_bar_table(
    schedule: str, timesteps: int, *, beta_start: float = BETA_START, beta_end: float = BETA_END
) -> Tensor:
    """Cumulative products alpha_bar_t = prod_{s<=t} (1 - beta_s), [timesteps] float64, decreasing, in (0, 1).

    `linear`: beta grows linearly from `beta_start` to `beta_end` (Ho et al. 2020, section 4).
    `squaredcos_cap_v2`: alpha_bar(u) = cos^2((u + 0.008) / 1.008 * pi / 2), beta capped at 0.999
    (Nichol & Dhariwal 2021, equation 17); `beta_start` and `beta_end` play no part, as in diffusers.

    Raises:
        ValueError: unknown schedule, fewer than one timestep, or betas outside 0 < beta_start <= beta_end < 1.
    """
    if timesteps < 1:
        raise ValueError(f"timesteps={timesteps} must be at least 1.")
    check_choice("schedule", schedule, SCHEDULES)
    if schedule == "linear":
        if not 0.0 < beta_start <= beta_end < 1.0:
            raise ValueError(
                f"beta_start={beta_start} and beta_end={beta_end} must satisfy 0 < beta_start <= beta_end < 1."
            )
        beta = torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64)
    else:
        u = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
        alpha_bar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        beta = (1.0 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=MAX_BETA)
    return torch.cumprod(1.0 - beta, dim=0)
