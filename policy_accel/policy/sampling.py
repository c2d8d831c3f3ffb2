"""Which sampler turns noise into a trajectory."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from policy_accel.diffusion import SAMPLERS, DiscreteProcess, ddim, ddpm, dpm_solver_pp, timestep_grid
from policy_accel.diffusion.samplers import Denoiser, Known
from policy_accel.errors import UserError, did_you_mean


@dataclass
class SamplingConfig:
    """How a chunk is sampled."""

    sampler: str = "ddim"
    """ddpm (stochastic), ddim or dpm_solver++."""
    steps: int = 8
    """Network evaluations of a chunk."""
    spacing: str = "trailing"
    """Which training times they use: leading, trailing or linspace."""

    def check(self, timesteps: int) -> None:
        """Raise UserError unless this can sample a process of `timesteps` times."""
        if self.sampler not in SAMPLERS:
            raise UserError(f"sampling.sampler '{self.sampler}' is unknown; {did_you_mean(self.sampler, SAMPLERS)}")
        timestep_grid(timesteps, self.steps, self.spacing)


def noise_count(sampling: SamplingConfig) -> int:
    """Draws of standard normal noise that one sample needs: x_T, and one for each stochastic step."""
    return 1 + (sampling.steps if sampling.sampler == "ddpm" else 0)


def sample(
    denoise: Denoiser,
    noise: Tensor,
    process: DiscreteProcess,
    *,
    target: str,
    clip: float | None,
    known: Known,
    sampling: SamplingConfig,
) -> Tensor:
    """Sample x_0 [B, *S] from noise [B, noise_count, *S]."""
    grid = timestep_grid(process.timesteps, sampling.steps, sampling.spacing)
    if sampling.sampler == "ddpm":
        steps = noise[:, 1:].unbind(1)
        return ddpm(denoise, noise[:, 0], process, grid, target=target, clip=clip, noise=steps, known=known)
    solver = ddim if sampling.sampler == "ddim" else dpm_solver_pp
    return solver(denoise, noise[:, 0], process, grid, target=target, clip=clip, known=known)
