"""Forward processes: how a clean sample is mixed with noise at time t."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from policy_accel.diffusion.grid import SPACINGS, Grid, timestep_grid
from policy_accel.diffusion.schedules import BETA_END, BETA_START, alpha_bar_table
from policy_accel.diffusion.tables import moved
from policy_accel.diffusion.timesteps import Number, TimestepDistribution, UniformTimes

SIGMA_DATA = 0.5
"""Deviation of the data that the target edm assumes where nothing else is said (Karras et al. 2022, table 1)."""


def per_sample(coefficient: Tensor, like: Tensor) -> Tensor:
    """Shape a coefficient [B] so that it multiplies `like` [B, *S], in the dtype of `like`."""
    return coefficient.to(like.dtype).view(-1, *([1] * (like.ndim - 1)))


@dataclass(frozen=True)
class Level:
    """One time of a process as Python floats: x_t = alpha x_0 + sigma epsilon, of which the network sees
    input_scale * x_t, and `time` is what it is told, one number or several; sigma_data as for `SigmaProcess`."""

    alpha: float
    sigma: float
    input_scale: float
    time: float | int | tuple[float, ...]
    sigma_data: float = SIGMA_DATA

    def told(self, x: Tensor) -> Tensor:
        """`time` for the rows of x [B, *S]: [B] int64 or float32, or [B, n] float32 of several numbers."""
        if isinstance(self.time, tuple):
            return torch.stack([torch.full(x.shape[:1], number, device=x.device) for number in self.time], dim=1)
        dtype = torch.int64 if isinstance(self.time, int) else torch.float32
        return torch.full(x.shape[:1], self.time, device=x.device, dtype=dtype)

    @property
    def half_log_snr(self) -> float:
        """log(alpha / sigma), infinite for a clean sample."""
        return math.log(self.alpha) - math.log(self.sigma) if self.sigma > 0 else math.inf


CLEAN = Level(alpha=1.0, sigma=0.0, input_scale=1.0, time=0)


@dataclass(frozen=True)
class Coefficients:
    """The same for a batch of times: alpha, sigma, input_scale [B] float64, and what the network is told, [B], or
    [B, n] where that is several numbers; sigma_data is one for all."""

    alpha: Tensor
    sigma: Tensor
    input_scale: Tensor
    time: Tensor
    sigma_data: float = SIGMA_DATA


class Process(ABC):
    """A forward process x_t = alpha_t x_0 + sigma_t epsilon, and what it knows of its training and sampling.

    Times are int64 from 0 to `timesteps` - 1, or float64 in the process' own unit where time is continuous.
    """

    @property
    def timesteps(self) -> int | None:
        """Number of discrete times T; None where time is continuous."""
        return None

    @property
    @abstractmethod
    def targets(self) -> tuple[str, ...]:
        """What a denoiser can be trained to predict, its usual target first."""

    @property
    def capped_targets(self) -> tuple[str, ...]:
        """Those of `targets` whose loss weight FDM's cap can limit."""
        return ()

    @property
    def samplers(self) -> tuple[str, ...] | None:
        """The only samplers that can draw from it; None for all that are not another process' own."""
        return None

    def to(self, device: torch.device | str) -> Self:
        """The same process with its tables on `device`."""
        return moved(self, device)

    @abstractmethod
    def level(self, t: float) -> Level:
        """The coefficients of one time; the clean sample for a negative one."""

    def knowing(self, times: Iterable[float]) -> Self:
        """The same process, which knows the levels of `times` by heart. Nothing reads a table where a sampler steps
        through them, so that its steps can be traced for a compiler or an exported file."""
        copied = copy.copy(self)
        object.__setattr__(copied, "level", _KnownLevels(self, {t: self.level(t) for t in times}))
        return copied

    @abstractmethod
    def coefficients(self, t: Tensor) -> Coefficients:
        """The coefficients at times t [B], on the tables' device."""

    @abstractmethod
    def diffuse(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t [B, *S] of clean samples x0 [B, *S] with noise [B, *S] at times t [B]."""

    @abstractmethod
    def log_snr_at(self, t: Tensor) -> Tensor:
        """log(alpha_t^2 / sigma_t^2) at times t of any shape, float64."""

    def loss_weight(self, t: Tensor, target: str, cap: Number | None = None) -> Tensor | None:
        """Weight of the squared error of `target` at times t [R], float64; None for 1 throughout.

        `cap` is an upper bound on the weight of the clean sample's error that this stands for (FDM's).
        """
        return None

    @abstractmethod
    def times(self) -> TimestepDistribution:
        """The usual distribution of the training times."""

    def validation_times(self) -> TimestepDistribution:
        """That of validation; here the same."""
        return self.times()

    @abstractmethod
    def grid(self, steps: int, spacing: str = SPACINGS[0]) -> Grid:
        """The times of `steps` sampling steps; only discrete times have a choice of `spacing`."""

    @property
    def time_range(self) -> tuple[float, float]:
        """The least and the largest time: all discrete ones, or 0, which is clean, and 1."""
        return (0.0, 1.0) if self.timesteps is None else (0, self.timesteps - 1)

    def grid_of(self, times: Sequence[float]) -> Grid:
        """The grid of the given times, noisy to clean, see `Grid.of`.

        Raises:
            ValueError: no times, or one that this process does not have.
        """
        if not times:
            raise ValueError("times=[] must name at least one.")
        low, high = self.time_range
        discrete = self.timesteps is not None
        for time in times:
            if not low <= time <= high or self.level(time).sigma == 0 or (discrete and time != int(time)):
                kind, least = ("an integer ", f"{low}") if discrete else ("", f"{low:g}" if low > 0 else "above 0")
                raise ValueError(f"times={list(times)}: {time} must be {kind}from {least} to {high:g}.")
        return Grid.of([int(time) if discrete else float(time) for time in times])


@dataclass(frozen=True)
class _KnownLevels:
    """`Process.level` that remembers some."""

    process: Process
    known: Mapping[float, Level]

    def __call__(self, t: float) -> Level:
        return self.known[t] if t in self.known else self.process.level(t)


@dataclass(frozen=True)
class DiscreteProcess(Process):
    """x_t = alpha_t x_0 + sigma_t epsilon at integer times t = 0 .. timesteps - 1 (noisier with t).

    The tables are float64 and live on one device; coefficients are gathered in float64 and only then rounded to the
    sample's dtype. `input_scales` multiplies x_t before the network sees it (1 for variance-preserving processes).
    """

    alphas: Tensor
    sigmas: Tensor
    input_scales: Tensor = field(default=None)  # type: ignore[assignment]

    targets = ("epsilon", "sample", "v")
    capped_targets = ("epsilon", "v")

    def __post_init__(self) -> None:
        if self.input_scales is None:
            object.__setattr__(self, "input_scales", torch.ones_like(self.alphas))

    @property
    def timesteps(self) -> int:
        """Number of discrete times T."""
        return self.alphas.shape[0]

    @property
    def log_snr(self) -> Tensor:
        """log(alpha_t^2 / sigma_t^2), [T] float64."""
        return 2.0 * (self.alphas.log() - self.sigmas.log())

    def level(self, t: float) -> Level:
        """alpha, sigma and input scale of one time; -1 is the clean sample."""
        if t < 0:
            return CLEAN
        t = int(t)
        return Level(float(self.alphas[t]), float(self.sigmas[t]), float(self.input_scales[t]), t)

    def coefficients(self, t: Tensor) -> Coefficients:
        """Coefficients at times t [B] int64, gathered on the tables' device."""
        return Coefficients(self.alphas[t], self.sigmas[t], self.input_scales[t], t)

    def diffuse(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t [B, *S] of clean samples x0 [B, *S] with noise [B, *S] at times t [B] int64."""
        return per_sample(self.alphas[t], x0) * x0 + per_sample(self.sigmas[t], x0) * noise

    def log_snr_at(self, t: Tensor) -> Tensor:
        """log(alpha_t^2 / sigma_t^2) at times t int64 of any shape."""
        return self.log_snr[t]

    def loss_weight(self, t: Tensor, target: str, cap: Number | None = None) -> Tensor | None:
        """The cap as a weight on the squared error of epsilon, min(1, cap sigma_t^2 / alpha_t^2), or of v, [R] float64.

        Derived: FDM caps the weight of the clean sample's error, which is alpha^2 / sigma^2 where epsilon's is 1, and
        1 / sigma^2 where v's is.
        """
        if cap is None:
            return None
        sigma = self.sigmas[t] / self.alphas[t] if target == "epsilon" else self.sigmas[t]
        weight: Tensor = cap * sigma.square()
        return weight.clamp(max=1.0)

    def times(self) -> UniformTimes:
        """Uniform over all times."""
        return UniformTimes(self.timesteps)

    def grid(self, steps: int, spacing: str = SPACINGS[0]) -> Grid:
        """`steps` of the times, see `timestep_grid`."""
        return timestep_grid(self.timesteps, steps, spacing)


def vp_process(
    schedule: str = "squaredcos_cap_v2",
    timesteps: int = 100,
    *,
    beta_start: float = BETA_START,
    beta_end: float = BETA_END,
) -> DiscreteProcess:
    """Variance-preserving: alpha_t^2 = alpha_bar_t, sigma_t^2 = 1 - alpha_bar_t (Ho et al. 2020, equation 4)."""
    return vp_process_of(alpha_bar_table(schedule, timesteps, beta_start=beta_start, beta_end=beta_end))


def vp_process_of(alpha_bar: Tensor) -> DiscreteProcess:
    """The variance-preserving process of a table alpha_bar [T] float64."""
    return DiscreteProcess(alphas=alpha_bar.sqrt(), sigmas=(1.0 - alpha_bar).sqrt())
