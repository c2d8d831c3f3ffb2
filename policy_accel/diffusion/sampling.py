"""Which sampler turns noise, or a noised image, into a sample of an objective."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from policy_accel.diffusion.grid import SPACINGS, Grid
from policy_accel.diffusion.objective import Objective
from policy_accel.diffusion.processes import Level, Process
from policy_accel.diffusion.samplers import (
    DETERMINISTIC_SAMPLERS,
    SAMPLERS,
    Denoiser,
    Known,
    ddpm,
    network_evaluations,
    start_scale,
    unchanged,
)
from policy_accel.errors import UserError, naming, one_of

HEUN_RATIO, HEUN_STEPS = 100.0, 50


@dataclass
class SamplingConfig:
    """How a sample is drawn from a trained model."""

    sampler: str = "ddim"
    """ddpm (stochastic), ddim, dpm_solver++, euler or heun (for edm, vp, ve and flow)."""
    steps: int = 8
    """Steps of a sample; heun evaluates the network 2 steps - 1 times, the others once a step."""
    spacing: str = SPACINGS[0]
    """Which training times of a discrete process they use: leading, trailing or linspace."""

    def check(self, process: Process) -> None:
        """Raise UserError unless this can sample `process`."""
        one_of("sampling.sampler", self.sampler, SAMPLERS)
        with naming("sampling", timesteps="diffusion.timesteps"):
            grid = self.grid(process)
        if process.timesteps is not None and self.sampler == "heun" and self.steps < HEUN_STEPS:
            first = process.level(grid.timesteps[0])
            if first.sigma > HEUN_RATIO * first.alpha:
                raise UserError(
                    f"sampling.sampler=heun averages slopes along sigma / alpha, which starts at "
                    f"{first.sigma / first.alpha:.0f} on this schedule (EDM's starts at 80) and needs at least "
                    f"{HEUN_STEPS} steps there, not sampling.steps={self.steps}; choose ddim or dpm_solver++."
                )

    def grid(self, process: Process) -> Grid:
        """The times of the steps."""
        return process.grid(self.steps, self.spacing)

    @property
    def network_evaluations(self) -> int:
        """Evaluations of the network for one sample."""
        return network_evaluations(self.sampler, self.steps)

    @property
    def noise_count(self) -> int:
        """Draws of standard normal noise that one sample needs: x_T, and one for each stochastic step."""
        return 1 + (self.steps if self.sampler == "ddpm" else 0)


def last_part(grid: Grid, strength: float) -> Grid:
    """The last `strength` of a grid's steps, rounded, at least one.

    Raises:
        UserError: a strength outside (0, 1].
    """
    if not 0.0 < strength <= 1.0:
        raise UserError(f"strength={strength} must be above 0 and at most 1, which keeps nothing of the image.")
    kept = max(1, round(strength * len(grid.timesteps)))
    return Grid(grid.timesteps[-kept:], grid.next_timesteps[-kept:])


def check_resamplings(resamplings: int, sampling: SamplingConfig) -> None:
    """Raise UserError unless each step of `sampling` can be taken so often."""
    if resamplings < 1:
        raise UserError(f"resamplings={resamplings} must be at least 1, which takes each step once.")
    if resamplings > 1 and sampling.sampler != "ddpm":
        raise UserError(
            f"resamplings={resamplings} noises the image again after each step, which only sampling.sampler=ddpm does, "
            f"not {sampling.sampler}; choose it, or 1."
        )


def resampled(grid: Grid, times: int) -> Grid:
    """A grid on which every step is taken `times` times, from noise added anew (Lugmayr et al. 2022, algorithm 1).

    Only ancestral sampling (ddpm) goes back up. It brings what is painted in line with what is known around it.
    """
    return Grid(
        tuple(time for time in grid.timesteps for _ in range(times)),
        tuple(time for time in grid.next_timesteps for _ in range(times)),
    )


def sample(
    denoise: Denoiser,
    noise: Tensor | Iterable[Tensor],
    objective: Objective,
    sampling: SamplingConfig,
    *,
    clip: float | None = None,
    known: Known = unchanged,
    image: Tensor | None = None,
    strength: float = 1.0,
    resamplings: int = 1,
) -> Tensor:
    """Sample x_0 [B, *S] in the data's units.

    With `image` it edits (Meng et al. 2022, SDEdit): it takes the last `strength` of the steps and starts from
    alpha image + sigma noise at their first level. At strength 1 that is the whole grid, and differs from sampling by
    alpha image in the start: nothing for flow (alpha = 0), 0.006 image for the linear schedule of 1,000 times with a
    grid from its last one, image beside noise of deviation 80 for edm. A `leading` grid starts at a lower level, from
    which sampling would see pure noise, so that strength 1 keeps more there.

    Args:
        denoise: `denoise(model_input, time)`, the network.
        noise: standard normal: a tensor [B, sampling.noise_count, *S], or its draws [B, *S] one after the other, for
            which a whole tensor would be too large.
        objective: of the training.
        sampling: sampler, steps and grid.
        clip: bound of the predicted sample in the data's units, or None.
        known: puts the given entries into a state x of the data's units, `known(x, level)` with x = alpha x_0 + sigma
            epsilon at that level.
        image: clean images [B, *S] to edit, in the data's units, or None.
        strength: share of the steps that an edit takes, in (0, 1].
        resamplings: how often each step is taken (see `resampled`); more than once takes sampler ddpm, and draws one by
            one, as there are more of them than sampling.noise_count.

    Raises:
        UserError: a strength outside (0, 1], or resamplings that the sampler cannot do.
    """
    process, scale = objective.process, objective.data_scale
    draws = iter(noise.unbind(1) if isinstance(noise, Tensor) else noise)
    grid = sampling.grid(process)

    def known_scaled(x: Tensor, level: Level) -> Tensor:
        return x if known is unchanged else scale * known(x / scale, replace(level, sigma=level.sigma / scale))

    if image is None:
        start = start_scale(process, grid) * next(draws)
    else:
        grid = last_part(grid, strength)
        first = process.level(grid.timesteps[0])
        start = first.alpha * (scale * image) + first.sigma * next(draws)
    if resamplings != 1:
        check_resamplings(resamplings, sampling)
        grid = resampled(grid, resamplings)
    options = {"target": objective.target, "clip": None if clip is None else scale * clip, "known": known_scaled}
    if sampling.sampler == "ddpm":
        x0 = ddpm(denoise, start, process, grid, noise=draws, **options)  # type: ignore[arg-type]
    else:
        x0 = DETERMINISTIC_SAMPLERS[sampling.sampler](denoise, start, process, grid, **options)  # type: ignore[arg-type]
    return x0 if scale == 1.0 else x0 / scale
