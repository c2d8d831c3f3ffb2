"""A curriculum over diffusion times: uniform at first, ever more often near the times that are hardest to learn.

Xu, Mi, Wang & Chen 2024, "Towards Faster Training of Diffusion Models: An Inspiration of A Consistency Phenomenon"
(arXiv 2404.07946), the timestep schedule. The paper gives the centre 0.3 and the uniform start; the linear mixing is
known from re-implementations, which disagree on the width (0.25 to 1). Normalising the bump over the times that
exist, the strength and the noise-matched positions are derived here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from policy_accel.acceleration.timestep_distributions import cumulative, invert, variates
from policy_accel.diffusion.schedules import alpha_bar_table
from policy_accel.diffusion.timesteps import Number, TimestepDistribution

REFERENCE_TIMESTEPS = 1000


@dataclass(eq=False)
class CurriculumTimes(TimestepDistribution):
    """Times with the probabilities (1 - g) / T + g q_t: q is a bump and g its share, which grows during the training.

    No importance weight is implied: the curriculum changes the objective, and the effective weight of a time is T p_t,
    unless it is `unbiased`. Draws mix two cumulative tables on the device.

    Raises:
        ValueError: a setting out of range, or positions of another length.
    """

    timesteps: int
    """Number of times T."""
    center: float = 0.3
    """Position of the hardest times, in [0, 1] (0 is clean, 1 is noise)."""
    width: float = 0.5
    """Standard deviation of the bump, in the same unit; positive."""
    start: float = 0.0
    """Progress of the training at which the bump begins to grow, linearly."""
    end: float = 1.0
    """Progress at which it is fully grown."""
    strength: float = 1.0
    """Share of the bump once it is fully grown; every time keeps at least (1 - strength) / T."""
    positions: Tensor | None = None
    """[T], where each time sits on the axis of `center`; t / T when not given (the paper's linear schedule of 1000),
    `noise_matched_positions` for others."""
    stratified: bool = False
    """See `variates`."""
    unbiased: bool = False
    """Weight the loss by 1 / (T p_t): the objective of uniform times, with the curriculum's draws."""
    bump: Tensor = field(init=False, repr=False)
    """q: a Gaussian in the position, cut to the times that exist and normalised, [T] float64."""

    def __post_init__(self) -> None:
        timesteps, positions = self.timesteps, self.positions
        if timesteps < 1:
            raise ValueError(f"timesteps={timesteps} must be at least 1.")
        for name, value in (("center", self.center), ("strength", self.strength)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name}={value} must lie in [0, 1].")
        if not 0.0 < self.width < math.inf:
            raise ValueError(f"width={self.width} must be a positive number.")
        if not 0.0 <= self.start < self.end <= 1.0:
            raise ValueError(f"start={self.start} and end={self.end} must satisfy 0 <= start < end <= 1.")
        if positions is None:
            positions = torch.arange(timesteps, dtype=torch.float64) / timesteps
        if positions.shape != (timesteps,):
            raise ValueError(
                f"positions: the shape is {list(positions.shape)}; give one entry for each of the {timesteps} times."
            )
        self.bump = torch.softmax(-0.5 * ((positions.double() - self.center) / self.width).square(), dim=0)
        self.uniform_cdf = cumulative(torch.full_like(self.bump, 1.0 / timesteps))
        self.bump_cdf = cumulative(self.bump)

    def share(self, progress: Number) -> Number:
        """g at `progress`, the share of the training that is over: 0 up to `start`, `strength` from `end` on."""
        grown = (progress - self.start) / (self.end - self.start)
        inside = grown.clamp(0.0, 1.0) if isinstance(grown, Tensor) else min(max(grown, 0.0), 1.0)
        return self.strength * inside

    def probabilities(self, progress: float) -> Tensor:
        """p_t at `progress`, [T] float64."""
        share = self.share(progress)
        return (1.0 - share) / self.timesteps + share * self.bump

    def times(self, u: Tensor, progress: Number) -> Tensor:
        """Times of uniform variates u at `progress`: int64 of u's shape."""
        share = self.share(progress)
        return invert((1.0 - share) * self.uniform_cdf + share * self.bump_cdf, u)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, progress: Number = 0.0) -> Tensor:
        """Times of `shape`, int64 on the generator's device."""
        return self.times(variates(shape, generator, self.stratified), progress)

    def loss_weight(self, t: Tensor, progress: Number = 0.0) -> Tensor | None:
        """1 / (T p_t) when unbiased, else None."""
        if not self.unbiased:
            return None
        share = self.share(progress)
        return 1.0 / ((1.0 - share) + share * self.timesteps * self.bump[t])


def timestep_probabilities(
    progress: float,
    timesteps: int,
    *,
    center: float = CurriculumTimes.center,
    width: float = CurriculumTimes.width,
    start: float = CurriculumTimes.start,
    end: float = CurriculumTimes.end,
    strength: float = CurriculumTimes.strength,
    positions: Tensor | None = None,
) -> Tensor:
    """Probabilities of the times 0 .. timesteps - 1 at `progress` of the training, [T] float64: the curriculum as a
    function, with the settings of `CurriculumTimes`.
    """
    return CurriculumTimes(timesteps, center, width, start, end, strength, positions).probabilities(progress)


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
