"""Samplers as plain functions of (denoiser, x_T, process, grid).

Every coefficient is a Python float taken from the float64 tables before the loop, so no step waits for the device.
`denoise(x_t [B, *S], t [B] int64)` returns the network's prediction in the form that `target` names.
In-painting: `known(x)` puts the known entries back; it is applied before every evaluation and to the result
(Janner et al. 2022, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policy_accel.diffusion.processes import DiscreteProcess
from policy_accel.errors import UserError, did_you_mean

SPACINGS = ("leading", "trailing", "linspace")
SAMPLERS = ("ddpm", "ddim", "dpm_solver++")
SMALLEST_VARIANCE = 1e-20

Denoiser = Callable[[Tensor, Tensor], Tensor]
Known = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Grid:
    """Times at which the denoiser is evaluated, descending, and the time that each step leads to (-1: clean)."""

    timesteps: tuple[int, ...]
    previous: tuple[int, ...]

    @classmethod
    def of(cls, timesteps: Sequence[int]) -> Grid:
        """A grid whose steps lead from each time to the next one, and from the last to the clean sample."""
        steps = tuple(int(t) for t in timesteps)
        return cls(steps, (*steps[1:], -1))


def timestep_grid(timesteps: int, sampling_steps: int, spacing: str) -> Grid:
    """Choose `sampling_steps` of the `timesteps` training times (Lin et al. 2023, table 2; diffusers' rounding).

    `leading`: multiples of T // n from 0, never reaching T - 1. `trailing`: from T - 1 down in steps of T / n.
    `linspace`: evenly from T - 1 to 0. Steps lead to the next point of the grid; diffusers' DDIM instead always steps
    back by T // n, which misses its own next point on a linspace grid.

    Raises:
        UserError: unknown spacing, or not 1 <= sampling_steps <= timesteps.
    """
    if not 1 <= sampling_steps <= timesteps:
        raise UserError(f"sampling.steps={sampling_steps}; choose between 1 and diffusion.timesteps={timesteps}.")
    if spacing == "leading":
        grid = [i * (timesteps // sampling_steps) for i in reversed(range(sampling_steps))]
    elif spacing == "trailing":
        grid = [round(timesteps - i * timesteps / sampling_steps) - 1 for i in range(sampling_steps)]
    elif spacing == "linspace":
        last = timesteps - 1
        stride = last / max(1, sampling_steps - 1)
        grid = [round(i * stride) for i in reversed(range(sampling_steps))]
        grid = [last] if sampling_steps == 1 else grid
    else:
        raise UserError(f"sampling.spacing '{spacing}' is unknown; {did_you_mean(spacing, SPACINGS)}")
    return Grid.of(grid)


@dataclass(frozen=True)
class _Level:
    """alpha and sigma of one time as floats; the clean sample has alpha 1, sigma 0."""

    alpha: float
    sigma: float

    @property
    def half_log_snr(self) -> float:
        return math.log(self.alpha) - math.log(self.sigma) if self.sigma > 0 else math.inf


def _levels(process: DiscreteProcess, grid: Grid) -> list[tuple[int, float, _Level, _Level]]:
    alphas, sigmas = process.alphas.cpu(), process.sigmas.cpu()
    scales = process.input_scales.cpu()

    def level(t: int) -> _Level:
        return _Level(float(alphas[t]), float(sigmas[t])) if t >= 0 else _Level(1.0, 0.0)

    pairs = zip(grid.timesteps, grid.previous, strict=True)
    return [(t, float(scales[t]), level(t), level(previous)) for t, previous in pairs]


def _x0_and_epsilon(
    prediction: Tensor, x: Tensor, level: _Level, target: str, clip: float | None
) -> tuple[Tensor, Tensor]:
    """The clipped clean sample and the network's own (unclipped) noise estimate."""
    if target == "sample":
        x0, epsilon = prediction, (x - level.alpha * prediction) / level.sigma
    elif target == "epsilon":
        x0, epsilon = (x - level.sigma * prediction) / level.alpha, prediction
    else:
        x0, epsilon = level.alpha * x - level.sigma * prediction, level.alpha * prediction + level.sigma * x
    return (x0 if clip is None else x0.clamp(-clip, clip)), epsilon


def _evaluate(denoise: Denoiser, x: Tensor, t: int, scale: float) -> Tensor:
    times = torch.full((x.shape[0],), t, device=x.device, dtype=torch.int64)
    return denoise(x if scale == 1.0 else scale * x, times).to(x.dtype)


def _unchanged(x: Tensor) -> Tensor:
    return x


def ddpm(
    denoise: Denoiser,
    x: Tensor,
    process: DiscreteProcess,
    grid: Grid,
    *,
    target: str = "epsilon",
    clip: float | None = 1.0,
    noise: Sequence[Tensor] | Tensor,
    known: Known = _unchanged,
) -> Tensor:
    """Ancestral sampling with the small posterior variance (Ho et al. 2020, equations 6-7 and algorithm 2).

    `noise[i]` [B, *S] is the fresh noise of step i; the last step adds none. Returns x_0 [B, *S].
    """
    for i, (t, scale, here, there) in enumerate(_levels(process, grid)):
        x = known(x)
        x0, _ = _x0_and_epsilon(_evaluate(denoise, x, t, scale), x, here, target, clip)
        alpha_step = (here.alpha / there.alpha) ** 2
        beta_step = 1.0 - alpha_step
        x0_weight = there.alpha * beta_step / here.sigma**2
        x_weight = math.sqrt(alpha_step) * there.sigma**2 / here.sigma**2
        x = x0_weight * x0 + x_weight * x
        if there.sigma > 0:
            variance = max(beta_step * there.sigma**2 / here.sigma**2, SMALLEST_VARIANCE)
            x = x + math.sqrt(variance) * noise[i]
    return known(x)


def ddim(
    denoise: Denoiser,
    x: Tensor,
    process: DiscreteProcess,
    grid: Grid,
    *,
    target: str = "epsilon",
    clip: float | None = 1.0,
    known: Known = _unchanged,
) -> Tensor:
    """Deterministic DDIM, eta = 0 (Song et al. 2021, equation 12). Returns x_0 [B, *S].

    The clean sample is clipped, the direction keeps the network's own epsilon, as diffusers does by default.
    """
    for t, scale, here, there in _levels(process, grid):
        x = known(x)
        x0, epsilon = _x0_and_epsilon(_evaluate(denoise, x, t, scale), x, here, target, clip)
        x = there.alpha * x0 + there.sigma * epsilon if there.sigma > 0 else x0
    return known(x)


def dpm_solver_pp(
    denoise: Denoiser,
    x: Tensor,
    process: DiscreteProcess,
    grid: Grid,
    *,
    target: str = "epsilon",
    clip: float | None = 1.0,
    known: Known = _unchanged,
) -> Tensor:
    """DPM-Solver++(2M): second-order multistep in the data prediction (Lu et al. 2022b, algorithm 2).

    The first and the last step are first order; the last one leads to sigma = 0. Returns x_0 [B, *S].
    """
    last_x0: Tensor | None = None
    last_step = math.nan
    for t, scale, here, there in _levels(process, grid):
        x = known(x)
        x0, _ = _x0_and_epsilon(_evaluate(denoise, x, t, scale), x, here, target, clip)
        if there.sigma == 0:
            x = x0
            continue
        step = there.half_log_snr - here.half_log_snr
        direction = x0
        if last_x0 is not None:
            direction = x0 + 0.5 * (step / last_step) * (x0 - last_x0)
        x = there.sigma / here.sigma * x - there.alpha * math.expm1(-step) * direction
        last_x0, last_step = x0, step
    return known(x)
