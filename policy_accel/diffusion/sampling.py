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
from policy_accel.errors import UserError, did_you_mean


@dataclass
class SamplingConfig:
    """How a sample is drawn from a trained model."""

    sampler: str = "ddim"
    """ddpm (stochastic, discrete processes only), ddim, dpm_solver++, euler or heun."""
    steps: int = 8
    """Steps of a sample; heun evaluates the network 2 steps - 1 times, the others once a step."""
    spacing: str = "trailing"
    """Which training times of a discrete process they use: leading, trailing or linspace."""

    def check(self, process: Process) -> None:
        """Raise UserError unless this can sample `process`."""
        if self.sampler not in SAMPLERS:
            raise UserError(f"sampling.sampler '{self.sampler}' is unknown; {did_you_mean(self.sampler, SAMPLERS)}")
        if self.sampler == "ddpm" and not isinstance(process, DiscreteProcess):
            raise UserError(
                "sampling.sampler=ddpm needs a discrete process (diffusion.family=ddpm); choose heun, euler or ddim."
            )
        self.grid(process)

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
