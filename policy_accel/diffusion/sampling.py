"""Which sampler turns noise into a sample of an objective."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from policy_accel.diffusion.objective import Objective, Process
from policy_accel.diffusion.processes import DiscreteProcess
from policy_accel.diffusion.samplers import (
    DETERMINISTIC_SAMPLERS,
    SAMPLERS,
    Denoiser,
    Grid,
    Known,
    ddpm,
    network_evaluations,
    start_scale,
    timestep_grid,
    unchanged,
)
from policy_accel.errors import UserError, one_of, refuse_idle

HEUN_RATIO, HEUN_STEPS = 100.0, 50


@dataclass
class SamplingConfig:
    """How a sample is drawn from a trained model."""

    sampler: str = "ddim"
    """ddpm (stochastic), ddim, dpm_solver++, euler or heun (for edm, vp, ve and flow)."""
    steps: int = 8
    """Steps of a sample; heun evaluates the network 2 steps - 1 times, the others once a step."""
    spacing: str = "trailing"
    """Which training times of a discrete process they use: leading, trailing or linspace."""

    def check(self, process: Process) -> None:
        """Raise UserError unless this can sample `process`."""
        one_of("sampling.sampler", self.sampler, SAMPLERS)
        grid = self.grid(process)
        if not isinstance(process, DiscreteProcess):
            refuse_idle(self, "sampling", {"sampler", "steps"}, "a continuous diffusion.family")
        elif self.sampler == "heun" and self.steps < HEUN_STEPS:
            first = process.level(int(grid.timesteps[0]))
            if first.sigma > HEUN_RATIO * first.alpha:
                raise UserError(
                    f"sampling.sampler=heun averages slopes along sigma / alpha, which starts at "
                    f"{first.sigma / first.alpha:.0f} on this schedule (EDM's starts at 80) and needs at least "
                    f"{HEUN_STEPS} steps there, not sampling.steps={self.steps}; choose ddim or dpm_solver++."
                )

    def grid(self, process: Process) -> Grid:
        """The times of the steps."""
        if isinstance(process, DiscreteProcess):
            return timestep_grid(process.timesteps, self.steps, self.spacing)
        if self.steps < 1:
            raise UserError(f"sampling.steps={self.steps} must be at least 1.")
        return process.grid(self.steps)

    @property
    def network_evaluations(self) -> int:
        """Evaluations of the network for one sample."""
        return network_evaluations(self.sampler, self.steps)

    @property
    def noise_count(self) -> int:
        """Draws of standard normal noise that one sample needs: x_T, and one for each stochastic step."""
        return 1 + (self.steps if self.sampler == "ddpm" else 0)


def sample(
    denoise: Denoiser,
    noise: Tensor,
    objective: Objective,
    sampling: SamplingConfig,
    *,
    clip: float | None = None,
    known: Known = unchanged,
) -> Tensor:
    """Sample x_0 [B, *S] in the data's units from noise [B, sampling.noise_count, *S].

    `denoise(model_input, time)` is the network, `clip` the bound of the predicted sample in the data's units, `known`
    puts the known entries of a sample back.
    """
    process, scale = objective.process, objective.data_scale
    grid = sampling.grid(process)

    def known_scaled(x: Tensor) -> Tensor:
        return x if known is unchanged else scale * known(x / scale)

    options = {"target": objective.target, "clip": None if clip is None else scale * clip, "known": known_scaled}
    start = start_scale(process, grid) * noise[:, 0]
    if sampling.sampler == "ddpm":
        x0 = ddpm(denoise, start, process, grid, noise=noise[:, 1:].unbind(1), **options)  # type: ignore[arg-type]
    else:
        x0 = DETERMINISTIC_SAMPLERS[sampling.sampler](denoise, start, process, grid, **options)  # type: ignore[arg-type]
    return x0 if scale == 1.0 else x0 / scale
