"""A curriculum over diffusion times: uniform at first, ever more often near the times that are hardest to learn.

Xu, Mi, Wang & Chen 2024, "Towards Faster Training of Diffusion Models: An Inspiration of A Consistency Phenomenon"
(arXiv 2404.07946), the timestep schedule. The paper gives the centre 0.3 and the uniform start; the linear mixing is
known from re-implementations, which disagree on the width (0.25 to 1). Normalising the bump over the times that
exist, the strength and the noise-matched positions are derived here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policy_accel.diffusion.schedules import alpha_bar_table

REFERENCE_TIMESTEPS = 1000


@dataclass(frozen=True)
class TimestepCurriculum:
    """Where the bump sits and when it grows.

    Raises:
        ValueError: a setting out of range.
    """

    center: float = 0.3
    """Position of the hardest times, in [0, 1] (0 is clean, 1 is noise)."""
    width: float = 0.5
    """Standard deviation of the bump, in the same unit; positive."""
    start: float = 0.0
    """Progress of the training at which the bump begins to grow."""
    end: float = 1.0
    """Progress at which it is fully grown."""
    strength: float = 1.0
    """Share of the bump once it is fully grown; every time keeps at least (1 - strength) / timesteps."""

    def __post_init__(self) -> None:
        for name in ("center", "strength"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}={getattr(self, name)} must lie in [0, 1].")
        if not 0.0 < self.width < math.inf:
            raise ValueError(f"width={self.width} must be a positive number.")
        if not 0.0 <= self.start < self.end <= 1.0:
            raise ValueError(f"start={self.start} and end={self.end} must satisfy 0 <= start < end <= 1.")

    def share(self, progress: float) -> float:
        """Share of the bump in the mixture at `progress`; below `start` it is 0, beyond `end` it is `strength`."""
        return self.strength * min(max((progress - self.start) / (self.end - self.start), 0.0), 1.0)

    def bump(self, timesteps: int, positions: Tensor | None = None) -> Tensor:
        """The fully grown bump: a Gaussian in the position, cut to the times that exist and normalised, [T] float64.

        `positions` [T] are those of the times; t / timesteps when not given.
        """
        if timesteps < 1:
            raise ValueError(f"timesteps={timesteps} must be at least 1.")
        if positions is None:
            positions = torch.arange(timesteps, dtype=torch.float64) / timesteps
        if positions.shape != (timesteps,):
            raise ValueError(
                f"positions: the shape is {list(positions.shape)}; give one entry for each of the {timesteps} times."
            )
        return torch.softmax(-0.5 * ((positions.double() - self.center) / self.width).square(), dim=0)


def timestep_probabilities(
    progress: float,
    timesteps: int,
    *,
    center: float = TimestepCurriculum.center,
    width: float = TimestepCurriculum.width,
    start: float = TimestepCurriculum.start,
    end: float = TimestepCurriculum.end,
    strength: float = TimestepCurriculum.strength,
    positions: Tensor | None = None,
) -> Tensor:
    """Probabilities of the times 0 .. timesteps - 1 at `progress` of the training, [T] float64 on positions' device.

    (1 - g) / T + g q_t with the bump q and its share g, which grows linearly between `start` and `end`; progress
    below 0 or above 1 counts as 0 or 1. No importance weight is implied: the curriculum changes the objective, and the
    effective weight of a time is T p_t (`CurriculumTimes(unbiased=True)` takes it out again).

    Args:
        progress: share of the training that is done before this step, in [0, 1].
        timesteps: number of times T.
        center, width, start, end, strength: see `TimestepCurriculum`.
        positions: [T], where each time sits on the axis of `center`; t / T by default (the paper's linear schedule of
            1000), `noise_matched_positions` for others.

    Raises:
        ValueError: a setting out of range, or positions of another length.
    """
    curriculum = TimestepCurriculum(center, width, start, end, strength)
    share, bump = curriculum.share(progress), curriculum.bump(timesteps, positions)
    return (1.0 - share) / timesteps + share * bump


def noise_matched_positions(log_snr: Tensor) -> Tensor:
    """Position t / 1000 of the linear schedule of 1000 steps that is as noisy as each time, [T] float64 in [0, 0.999].

    The paper takes the noise rate as the difficulty and sets its centre for image schedules; matching log(SNR) moves
    that centre to another schedule (derived). `log_snr` [T] = log(alpha^2 / sigma^2); what is cleaner or noisier than
    the reference gets its first or last position.
    """
    alpha_bar = alpha_bar_table("linear", REFERENCE_TIMESTEPS).numpy()
    reference = np.log(alpha_bar) - np.log1p(-alpha_bar)
    positions = np.arange(REFERENCE_TIMESTEPS) / REFERENCE_TIMESTEPS
    matched = np.interp(-log_snr.detach().double().cpu().numpy(), -reference, positions)
    return torch.from_numpy(matched).to(log_snr.device)
