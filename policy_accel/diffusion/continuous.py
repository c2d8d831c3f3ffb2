"""Processes in continuous time: noise-to-signal ratios (EDM, VP, VE and their preconditioning) and straight lines.

Times are float64 numbers in the process' own unit.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from policy_accel.diffusion.grid import SPACINGS, Grid
from policy_accel.diffusion.momentum import (
    BETA_MIN,
    BETA_RANGE,
    SIGMA_RANGES,
    VP_EPSILON,
    check_multiplier,
    momentum_input_scale,
    vp_sigma,
)
from policy_accel.diffusion.predictions import edm_coefficients
from policy_accel.diffusion.processes import CLEAN, SIGMA_DATA, Coefficients, Level, Process, per_sample
from policy_accel.diffusion.timesteps import Number, ProcessTimes
from policy_accel.errors import check_choice

INPUT_SCALES = ("base", "momentum", "one")
FLOW_DISTRIBUTIONS = ("uniform", "logit_normal")
LOG_SIGMA_MEAN = -1.2
LOG_SIGMA_DEVIATION = 1.2
VP_TIME_SCALE = 999.0
FLOW_TIME_SCALE = 1000.0
GRID_EXPONENT = 7.0
GRID_RANGE = (0.002, 80.0)
# First what F predicts in the family's own preconditioning, D(x) = c_skip x + c_out F(c_in x, c_noise) (equation 7).
SIGMA_TARGETS = {
    "edm": ("edm", "epsilon", "negative_epsilon", "sample"),
    "vp": ("epsilon", "negative_epsilon", "edm", "sample"),
    "ve": ("negative_epsilon", "epsilon", "edm", "sample"),
}


class ContinuousProcess(Process):
    """A process in continuous time: it has no tables, and a distribution of training times of its own."""

    @abstractmethod
    def draw_times(self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str) -> Tensor:
        """Training times of `shape`, float64, on the generator's device `device`."""

    def times(self) -> ProcessTimes:
        """The process' own distribution."""
        return ProcessTimes(self)

    def grid(self, steps: int, spacing: str = SPACINGS[0]) -> Grid:
        """The times of `steps` sampling steps.

        Raises:
            ValueError: fewer than 1 step, or a spacing, which only discrete times have a choice of.
        """
        if steps < 1:
            raise ValueError(f"steps={steps} must be at least 1.")
        if spacing != SPACINGS[0]:
            raise ValueError(f"spacing={spacing} has no effect in continuous time; leave it at {SPACINGS[0]}.")
        return Grid.of(self.sampling_times(steps))

    @abstractmethod
    def sampling_times(self, steps: int) -> tuple[float, ...]:
        """The times at which `steps` sampling steps start, noisy to clean."""


@dataclass(frozen=True)
class SigmaProcess(ContinuousProcess):
    """x = y + sigma n: the state is never scaled, and the time is the noise-to-signal ratio sigma itself.

    Preconditioning, weight, sampling grid and distribution of the training sigmas are those of Karras et al. 2022,
    table 1.

    Args:
        family: edm, vp or ve.
        input_scale: what multiplies the network's input. base: the family's own c_in (edm 1 / sqrt(sigma^2 +
            sigma_data^2), vp 1 / sqrt(1 + sigma^2), ve 1). momentum: FDM's s(sigma). one: 1, a control.
        multiplier: FDM's m, for input_scale=momentum; ve ignores it, as the released code does.
        sigma_data: standard deviation of the data, which the family edm and the target edm are made for.
        p_mean, p_std: of edm: mean and standard deviation of ln sigma in training.

    Raises:
        ValueError: unknown family or input scale, a negative multiplier, a sigma_data or p_std that is not positive, or
            a p_mean that is not finite.
    """

    family: str = "edm"
    input_scale: str = "base"
    multiplier: float = 1.0
    sigma_data: float = SIGMA_DATA
    p_mean: float = LOG_SIGMA_MEAN
    p_std: float = LOG_SIGMA_DEVIATION

    def __post_init__(self) -> None:
        check_choice("family", self.family, SIGMA_RANGES)
        check_choice("input_scale", self.input_scale, INPUT_SCALES)
        check_multiplier(self.multiplier)
        for name in ("sigma_data", "p_std"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be positive and finite.")
        if not math.isfinite(self.p_mean):
            raise ValueError(f"p_mean={self.p_mean} must be finite.")

    @property
    def targets(self) -> tuple[str, ...]:
        """See `SIGMA_TARGETS`."""
        return SIGMA_TARGETS[self.family]

    @property
    def capped_targets(self) -> tuple[str, ...]:
        """All of them."""
        return self.targets

    def c_in(self, sigma: Tensor) -> Tensor:
        """What multiplies the network's input at sigma [B] float64, see `input_scale`."""
        if self.input_scale == "momentum":
            return momentum_input_scale(sigma, family=self.family, multiplier=self.multiplier)
        if self.input_scale == "one" or self.family == "ve":
            return torch.ones_like(sigma)
        return (sigma.square() + (self.sigma_data**2 if self.family == "edm" else 1.0)).rsqrt()

    def c_noise(self, sigma: Tensor) -> Tensor:
        """What the network is told of sigma [B] float64: edm ln(sigma) / 4, vp 999 t(sigma), ve ln(sigma / 2)."""
        if self.family == "edm":
            return sigma.log() / 4.0
        if self.family == "ve":
            return (0.5 * sigma).log()
        decay = torch.log1p(sigma.square())
        # The root of beta_min t + beta_range t^2 / 2 = decay, in the form that does not cancel at small sigma.
        return VP_TIME_SCALE * (2.0 * decay / (BETA_MIN + (BETA_MIN**2 + 2.0 * BETA_RANGE * decay).sqrt()))

    def draw_times(self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str) -> Tensor:
        """Training sigmas of `shape`, float64, on the generator's device `device`.

        edm: ln sigma ~ N(p_mean, p_std^2). vp: sigma(t), t ~ U(1e-5, 1]. ve: log-uniform on [0.02, 100).
        """
        if self.family == "edm":
            z = torch.randn(shape, generator=generator, device=device, dtype=torch.float64)
            return (self.p_mean + self.p_std * z).exp()
        uniform = torch.rand(shape, generator=generator, device=device, dtype=torch.float64)
        if self.family == "vp":
            return vp_sigma(1.0 - (1.0 - VP_EPSILON) * uniform)
        low, high = SIGMA_RANGES["ve"]
        return low * (math.log(high / low) * uniform).exp()

    def validation_times(self) -> ProcessTimes:
        """At EDM's own p_mean and p_std, so that the losses of runs that are trained at others can be compared."""
        return ProcessTimes(replace(self, p_mean=LOG_SIGMA_MEAN, p_std=LOG_SIGMA_DEVIATION))

    def sample_weight(self, sigma: Tensor) -> Tensor:
        """Loss weight on the squared error of D, [B] float64, with sigma_data s: edm (sigma^2 + s^2) / (sigma s)^2,
        else 1 / sigma^2.

        It is 1 / c_out^2 in every family: in terms of F the weight is 1.
        """
        if self.family == "edm":
            return (sigma.square() + self.sigma_data**2) / (self.sigma_data * sigma).square()
        return sigma.square().reciprocal()

    def loss_weight(self, t: Tensor, target: str, cap: Number | None = None) -> Tensor:
        """`sample_weight`, at most `cap`, as a weight on the squared error of F, [R] float64."""
        weight = self.sample_weight(t) if cap is None else self.sample_weight(t).clamp(max=cap)
        if target == "sample":
            return weight
        # D = c_skip x + c_out F, where c_out is sigma for the noise, whatever its sign.
        return weight * (edm_coefficients(t, self.sigma_data)[1] if target == "edm" else t).square()

    def level(self, sigma: float) -> Level:
        """The coefficients of one sigma; the clean sample for sigma <= 0."""
        if sigma <= 0.0:
            return CLEAN
        at = torch.tensor(sigma, dtype=torch.float64)
        return Level(1.0, float(sigma), float(self.c_in(at)), float(self.c_noise(at)), self.sigma_data)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The coefficients at sigma [B] float64; the network is told c_noise in float32."""
        told = self.c_noise(sigma).float()
        return Coefficients(torch.ones_like(sigma), sigma, self.c_in(sigma), told, self.sigma_data)

    def diffuse(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """x0 + sigma noise [B, *S] of x0 [B, *S], noise [B, *S] and sigma [B]."""
        return x0 + per_sample(sigma, x0) * noise

    def log_snr_at(self, sigma: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2) = -2 ln sigma."""
        return -2.0 * sigma.log()

    @property
    def time_range(self) -> tuple[float, float]:
        """The family's range of sigma."""
        return SIGMA_RANGES[self.family]

    @property
    def grid_range(self) -> tuple[float, float]:
        """The least and the largest sigma of sampling: 0.002 and 80, clipped to the family's own range, which matters
        for ve only (0.02 is its lowest sigma)."""
        sigma_min, sigma_max = SIGMA_RANGES[self.family]
        return max(GRID_RANGE[0], sigma_min), min(GRID_RANGE[1], sigma_max)

    def sampling_times(self, steps: int) -> tuple[float, ...]:
        """`karras_sigmas` of `grid_range`."""
        return karras_sigmas(steps, *self.grid_range)


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, exponent: float = GRID_EXPONENT) -> tuple[float, ...]:
    """`steps` sigmas from the largest to the least, evenly spaced in sigma^(1/exponent) (Karras et al. 2022, equation
    5)."""
    low, high = sigma_min ** (1.0 / exponent), sigma_max ** (1.0 / exponent)
    intervals = max(1, steps - 1)
    return tuple((high + i / intervals * (low - high)) ** exponent for i in range(steps))


@dataclass(frozen=True)
class FlowProcess(ContinuousProcess):
    """x_u = (1 - u) x0 + u n: straight lines from data to noise (Lipman et al. 2023; Liu et al. 2023), u in (0, 1].

    The network is told 1000 u and predicts the velocity n - x0.

    Args:
        distribution: of the training times. uniform: U(0, 1]. logit_normal: u = 1 / (1 + exp(-z)), z ~ N(0, 1)
            (Esser et al. 2024, equation 19 with m = 0, s = 1).

    Raises:
        ValueError: unknown distribution.
    """

    distribution: str = "uniform"

    targets = ("flow", "sample")

    def __post_init__(self) -> None:
        check_choice("distribution", self.distribution, FLOW_DISTRIBUTIONS)

    def draw_times(self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str) -> Tensor:
        """Training times u of `shape`, float64, on the generator's device `device`."""
        if self.distribution == "uniform":
            return 1.0 - torch.rand(shape, generator=generator, device=device, dtype=torch.float64)
        return torch.randn(shape, generator=generator, device=device, dtype=torch.float64).sigmoid()

    def level(self, u: float) -> Level:
        """The coefficients of one time; the clean sample for u <= 0."""
        return Level(1.0 - u, float(u), 1.0, FLOW_TIME_SCALE * u) if u > 0.0 else CLEAN

    def coefficients(self, u: Tensor) -> Coefficients:
        """The coefficients at times u [B] float64; the network is told 1000 u in float32."""
        return Coefficients(1.0 - u, u, torch.ones_like(u), (FLOW_TIME_SCALE * u).float())

    def diffuse(self, x0: Tensor, noise: Tensor, u: Tensor) -> Tensor:
        """x_u [B, *S] of x0 [B, *S], noise [B, *S] and u [B]."""
        return per_sample(1.0 - u, x0) * x0 + per_sample(u, x0) * noise

    def log_snr_at(self, u: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2) = 2 ln((1 - u) / u), minus infinity at u = 1."""
        return 2.0 * (torch.log1p(-u) - u.log())

    def sampling_times(self, steps: int) -> tuple[float, ...]:
        """Evenly spaced times from 1 down."""
        return tuple(1.0 - i / steps for i in range(steps))
