"""Two-step regression: MIP, the Minimal Iterative Policy of Pan et al. 2025 (arXiv 2512.01809)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policy_accel.diffusion.continuous import FLOW_TIME_SCALE
from policy_accel.diffusion.grid import SPACINGS, Grid
from policy_accel.diffusion.processes import CLEAN, Coefficients, Level, Process, per_sample
from policy_accel.diffusion.timesteps import Number, TimestepDistribution
from policy_accel.errors import check_choice

FORMS = ("released", "paper")


@dataclass(frozen=True)
class BothSteps(TimestepDistribution):
    """Every step as often as the other: one of the two at random for each sample, or all where it has several times."""

    timesteps = 2

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, progress: Number = 0.0) -> Tensor:
        """[B]: 0 or 1 at random. [B, M]: 0, 1, 0, 1, ... in every row."""
        if len(shape) == 1:
            return torch.randint(2, shape, device=generator.device, generator=generator)
        return torch.arange(shape[-1], device=generator.device).remainder(2).expand(shape)


@dataclass(frozen=True)
class TwoStepProcess(Process):
    """Two inputs, from both of which the network predicts the clean sample.

    Time 1 is the first step: the input is zero, so that the network regresses the sample on the condition alone. Time 0
    is the second: the input is a noised sample in training, and the first prediction, without noise, in sampling.

        first:   f(0, t=0),                    weight 1 / t*^2        (paper: weight 1)
        second:  f(x0 + (1 - t*) noise, t=t*), weight 1 / (1 - t*)^2  (paper: of t* x0 + (1 - t*) noise, weight 1)

    The released code (simchowitzlabpublic/much-ado-about-noising, `mip_loss` and `mip_sampler`) neither scales the
    sample at the second step nor the prediction that enters it; the paper scales both by t*. As in `FlowProcess` the
    network is told 1000 times the distance from the data: 1000 and 1000 (1 - t*).

    Args:
        t_star: t* of the second step, above 0 and below 1.
        form: released or paper.

    Raises:
        ValueError: t_star out of range, or an unknown form.
    """

    t_star: float = 0.9
    form: str = FORMS[0]

    targets = ("sample",)
    samplers = ("mip",)
    timesteps = 2

    def __post_init__(self) -> None:
        check_choice("form", self.form, FORMS)
        if not 0.0 < self.t_star < 1.0:
            raise ValueError(f"t_star={self.t_star} must lie between 0 and 1, both excluded.")

    @property
    def _second_alpha(self) -> float:
        return 1.0 if self.form == "released" else self.t_star

    def level(self, t: float) -> Level:
        """The coefficients of one step; the clean sample for a negative one."""
        if t < 0:
            return CLEAN
        if t >= 1:
            return Level(0.0, 0.0, 1.0, FLOW_TIME_SCALE)
        sigma = 1.0 - self.t_star
        return Level(self._second_alpha, sigma, 1.0, FLOW_TIME_SCALE * sigma)

    def coefficients(self, t: Tensor) -> Coefficients:
        """The coefficients at steps t [B] int64; what the network is told is float32."""
        second = 1.0 - t.double()
        told = FLOW_TIME_SCALE * (1.0 - self.t_star * second)
        return Coefficients(
            self._second_alpha * second, (1.0 - self.t_star) * second, torch.ones_like(second), told.float()
        )

    def diffuse(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The inputs [B, *S] of steps t [B]: zeros where t is 1."""
        at = self.coefficients(t)
        return per_sample(at.alpha, x0) * x0 + per_sample(at.sigma, x0) * noise

    def log_snr_at(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2) of the second step; minus infinity for the first, which sees nothing of the sample."""
        return torch.where(t >= 1, -math.inf, 2.0 * math.log(self._second_alpha / (1.0 - self.t_star))).double()

    def loss_weight(self, t: Tensor, target: str, cap: Number | None = None) -> Tensor | None:
        """1 / t*^2 at the first step and 1 / (1 - t*)^2 at the second, [R] float64; None (1) in the paper's form."""
        if self.form == "paper":
            return None
        first, second = self.t_star**-2, (1.0 - self.t_star) ** -2
        return second + (first - second) * t.double()

    def times(self) -> BothSteps:
        """Both steps alike."""
        return BothSteps()

    def grid(self, steps: int, spacing: str = SPACINGS[0]) -> Grid:
        """The first step, or both.

        Raises:
            ValueError: more than 2 steps or fewer than 1, or a spacing, of which there is no choice.
        """
        if not 1 <= steps <= 2:
            raise ValueError(f"steps={steps} must be 1, the first step alone, or 2: there are no others.")
        if spacing != SPACINGS[0]:
            raise ValueError(f"spacing={spacing} has no effect on two steps; leave it at {SPACINGS[0]}.")
        return Grid.of((1, 0)[:steps])

    def grid_of(self, times: Sequence[float]) -> Grid:
        """Refused: the steps are what they are."""
        raise ValueError(f"times={list(times)} has no effect on two steps; leave it at null.")
