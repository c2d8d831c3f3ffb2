"""Shortcut models: flow matching whose network is told how far a step goes (Frans et al. 2025, arXiv 2410.12557)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from policy_accel.diffusion.continuous import FLOW_TIME_SCALE
from policy_accel.diffusion.grid import SPACINGS, Grid
from policy_accel.diffusion.processes import CLEAN, Coefficients, Level, Process, per_sample
from policy_accel.diffusion.timesteps import Number, TimestepDistribution

SELF_CONSISTENT_EVERY = 4


def step_halves(told: Tensor) -> tuple[Tensor, Tensor]:
    """What the network is told of the two halves of steps [B, 2], each [B, 2] float32: first the noisier one."""
    time, half = told[:, 0], told[:, 1] + 1.0
    return torch.stack([time, half], 1), torch.stack([time - FLOW_TIME_SCALE * torch.exp2(-half), half], 1)


def step_size(told: Tensor) -> Tensor:
    """How far steps [B, 2] go, of the whole way from noise to data: 1, 1/2, 1/4, ..., [B] float32."""
    return torch.exp2(-told[:, 1])


@dataclass(frozen=True)
class FinestSteps(TimestepDistribution):
    """Any of the finest steps, all alike: flow matching."""

    finest: int

    @property
    def timesteps(self) -> int:  # type: ignore[override]
        """Number of all steps, 2 finest - 1."""
        return 2 * self.finest - 1

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, progress: Number = 0.0) -> Tensor:
        """Numbers of steps of `shape`, int64."""
        return self.finest - 1 + torch.randint(self.finest, shape, device=generator.device, generator=generator)


@dataclass(frozen=True)
class StepsOfAllSizes(FinestSteps):
    """The finest steps, but for each fourth row of a batch: a longer one of any size alike, anywhere on its grid."""

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, progress: Number = 0.0) -> Tensor:
        """See the base class; `shape` is [B]."""
        finest = super().draw(shape, generator, progress)
        longer = finest[::SELF_CONSISTENT_EVERY]
        sizes, places = torch.rand(
            2, len(longer), device=generator.device, generator=generator, dtype=torch.float64
        ).unbind()
        sizes = (sizes * (self.finest.bit_length() - 1)).long()
        steps = torch.bitwise_left_shift(torch.ones_like(sizes), sizes)
        longer.copy_(steps - 1 + (places * steps).long())
        return finest


@dataclass(frozen=True)
class ShortcutProcess(Process):
    """x_u = (1 - u) x0 + u n as for flow, of steps of the sizes 1, 1/2, 1/4, ... 1 / finest.

    A time is the number of a step. The grid of 2^k steps has the numbers 2^k - 1 to 2^(k + 1) - 2, from the data to the
    noise: step 2^k - 1 + i leads from u = (i + 1) / 2^k to i / 2^k. So the halves of step n are 2 n + 2 and 2 n + 1.
    The network is told 1000 u and k, [B, 2], and predicts the mean velocity over the step, which for the finest is the
    velocity n - x0.

    Args:
        finest: steps of the finest grid, a power of 2.

    Raises:
        ValueError: another number.
    """

    finest: int = 128
    starts: Tensor = field(init=False, repr=False)
    sizes: Tensor = field(init=False, repr=False)

    targets = ("flow",)
    samplers = ("euler", "ddim")

    def __post_init__(self) -> None:
        if self.finest < 2 or self.finest & (self.finest - 1):
            raise ValueError(f"finest={self.finest} must be a power of 2, from 2 on.")
        grids = [2**k for k in range(self.finest.bit_length())]
        starts = [torch.arange(1, steps + 1, dtype=torch.float64) / steps for steps in grids]
        sizes = [torch.full((steps,), float(k), dtype=torch.float64) for k, steps in enumerate(grids)]
        object.__setattr__(self, "starts", torch.cat(starts))
        object.__setattr__(self, "sizes", torch.cat(sizes))

    @property
    def timesteps(self) -> int:
        """Number of steps on all grids together, 2 finest - 1."""
        return 2 * self.finest - 1

    def level(self, t: float) -> Level:
        """The coefficients where a step starts; the clean sample for a negative number."""
        if t < 0:
            return CLEAN
        u = float(self.starts[int(t)])
        return Level(1.0 - u, u, 1.0, (FLOW_TIME_SCALE * u, float(self.sizes[int(t)])))

    def coefficients(self, t: Tensor) -> Coefficients:
        """The coefficients where steps t [B] int64 start; what the network is told is [B, 2] float32."""
        u = self.starts[t]
        told = torch.stack([FLOW_TIME_SCALE * u, self.sizes[t]], dim=1)
        return Coefficients(1.0 - u, u, torch.ones_like(u), told.float())

    def diffuse(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_u [B, *S] where steps t [B] start."""
        u = per_sample(self.starts[t], x0)
        return (1.0 - u) * x0 + u * noise

    def log_snr_at(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2) = 2 ln((1 - u) / u) where steps t start, minus infinity at u = 1."""
        u = self.starts[t]
        return 2.0 * (torch.log1p(-u) - u.log())

    def times(self) -> StepsOfAllSizes:
        """Three finest steps to a longer one, whose targets networks make (training/self_consistency.py)."""
        return StepsOfAllSizes(self.finest)

    def validation_times(self) -> FinestSteps:
        """The finest steps alone."""
        return FinestSteps(self.finest)

    def grid(self, steps: int, spacing: str = SPACINGS[0]) -> Grid:
        """The grid of `steps` steps.

        Raises:
            ValueError: not a power of 2 up to the finest, or a spacing, of which there is no choice.
        """
        if not 1 <= steps <= self.finest or steps & (steps - 1):
            raise ValueError(
                f"steps={steps} must be a power of 2 from 1 to finest={self.finest}: the steps it has learnt."
            )
        if spacing != SPACINGS[0]:
            raise ValueError(f"spacing={spacing} has no effect on steps of one size; leave it at {SPACINGS[0]}.")
        return Grid.of(tuple(range(2 * steps - 2, steps - 2, -1)))

    def grid_of(self, times: Sequence[float]) -> Grid:
        """Refused: times are numbers of steps, and only those of one grid follow each other."""
        raise ValueError(f"times={list(times)} has no effect on steps of one size; leave it at null.")
