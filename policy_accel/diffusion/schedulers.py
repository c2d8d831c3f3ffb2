"""Schedulers for the `diffusers` library: its pipelines and training loops on the processes of this package.

A network trained here is sampled by a loop of diffusers, and one trained by such a loop (`add_noise`,
`scale_model_input`) is sampled here:

    for t in scheduler.timesteps:
        prediction = model(scheduler.scale_model_input(sample, t), t)
        sample = scheduler.step(prediction, t, sample).prev_sample

Coefficients are float64 until they meet the sample; half-precision samples are computed in float32 and returned in
their own dtype. A loop waits for the device at most once, to find where it starts (never after `set_begin_index`);
timesteps that are numbers or lie on the CPU may also be given out of order.

DDPMPipeline and DDIMPipeline never call `scale_model_input` and ignore `init_noise_sigma`. Of these schedulers they
suit KarhunenLoeveScheduler alone, with any marginal but `raw`. DDIMPipeline makes a DDIMScheduler of the config that it
is given, which is then the same process; so may any scheduler of diffusers be made that takes `trained_betas`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from policy_accel.diffusion.continuous import VP_TIME_SCALE, SigmaProcess
from policy_accel.diffusion.grid import SPACINGS, Grid
from policy_accel.diffusion.karhunen_loeve import KarhunenLoeveProcess, karhunen_loeve_process
from policy_accel.diffusion.momentum import momentum_process, vp_sigma
from policy_accel.diffusion.objective import make_noised
from policy_accel.diffusion.processes import DiscreteProcess, per_sample, vp_process
from policy_accel.diffusion.samplers import euler_step, heun_correction
from policy_accel.diffusion.scheduler_base import (
    LoopScheduler,
    SchedulerMixin,
    in_wide_dtype,
    positive_count,
    register_to_config,
)
from policy_accel.diffusion.schedules import BETA_END, BETA_START, SCHEDULES
from policy_accel.errors import check_choice

# A pipeline of diffusers loads a class only from a module that has SchedulerMixin.
__all__ = ["KarhunenLoeveScheduler", "MomentumEDMScheduler", "MomentumScheduler", "SchedulerMixin"]

PREDICTION_TYPES = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}
SOLVERS = ("heun", "euler")


class _DiscreteScheduler(LoopScheduler):
    """DDIM with eta = 0 over integer timesteps, for any alpha and sigma."""

    process: DiscreteProcess

    def _base(self) -> DiscreteProcess:
        """The variance-preserving process of the config's betas; checks the rest of what the discrete ones share."""
        config = self.config
        timesteps = positive_count("num_train_timesteps", config.num_train_timesteps)
        check_choice("beta_schedule", config.beta_schedule, SCHEDULES)
        check_choice("prediction_type", config.prediction_type, tuple(PREDICTION_TYPES))
        check_choice("timestep_spacing", config.timestep_spacing, SPACINGS)
        return vp_process(config.beta_schedule, timesteps, beta_start=config.beta_start, beta_end=config.beta_end)

    def _finish(self, process: DiscreteProcess) -> None:
        times = Grid.of(range(process.timesteps - 1, -1, -1))
        self._prepare(process, times, PREDICTION_TYPES[self.config.prediction_type])

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Choose the timesteps of a loop, on `device`; steps lead from each to the next, and then to the clean sample.

        Raises:
            ValueError: not 1 <= num_inference_steps <= num_train_timesteps.
        """
        timesteps = self.config.num_train_timesteps
        if positive_count("num_inference_steps", num_inference_steps) > timesteps:
            raise ValueError(f"num_inference_steps={num_inference_steps} is more than num_train_timesteps={timesteps}.")
        grid = self.process.grid(num_inference_steps, self.config.timestep_spacing)
        self._place(grid, [self.process.level(t) for t in grid.timesteps], num_inference_steps, device)

    @property
    def alphas_cumprod(self) -> Tensor:
        """alpha^2 / (alpha^2 + sigma^2), [T] float64: what others read a scheduler's signal-to-noise ratio from."""
        return self.process.log_snr.sigmoid()

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The target of v-prediction, alpha_t noise - sigma_t sample (Salimans & Ho 2022, section 4), [B, *S]."""
        at = self._process_on(sample.device).coefficients(timesteps.to(sample.device))
        clean, wide = in_wide_dtype(sample), in_wide_dtype(noise)
        return (per_sample(at.alpha, wide) * wide - per_sample(at.sigma, clean) * clean).to(sample.dtype)


class KarhunenLoeveScheduler(_DiscreteScheduler):
    """DDIM (eta = 0) on the truncated Karhunen-Loeve process, see `karhunen_loeve_process`.

    Args:
        num_train_timesteps, beta_start, beta_end, beta_schedule (linear or squaredcos_cap_v2): the base process.
        modes: Karhunen-Loeve modes K, 1 to num_train_timesteps.
        marginal: matched, vp_equivalent or raw. raw starts from `init_noise_sigma`, not from unit noise.
        clock: time or variance.
        prediction_type: epsilon, sample or v_prediction.
        clip_sample, clip_sample_range: bound of the predicted clean sample.
        timestep_spacing: leading, trailing or linspace, see `timestep_grid`.
        trained_betas: leave it out. With vp_equivalent the config holds the table that results, so that schedulers of
            diffusers made from it agree (in float32); loading checks it.

    Raises:
        ValueError: an option that is unknown or out of range, or betas that are not those of the other options.
    """

    process: KarhunenLoeveProcess

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = BETA_START,
        beta_end: float = BETA_END,
        beta_schedule: str = "linear",
        modes: int = 4,
        marginal: str = "matched",
        clock: str = "time",
        prediction_type: str = "epsilon",
        clip_sample: bool = True,
        clip_sample_range: float = 1.0,
        timestep_spacing: str = "leading",
        trained_betas: Sequence[float] | None = None,
    ) -> None:
        process = karhunen_loeve_process(self._base(), modes, marginal, clock)
        if trained_betas is not None or marginal == "vp_equivalent":
            betas = process.betas
            given = betas if trained_betas is None else torch.as_tensor(trained_betas, dtype=torch.float64)
            if given.shape != betas.shape or not torch.allclose(given, betas, rtol=1e-6, atol=1e-9):
                raise ValueError(
                    "trained_betas are not those of the other options; leave them out, and name the process by "
                    "beta_schedule, beta_start, beta_end, modes, marginal and clock."
                )
            # What a config calls a default is not read back, and this is none.
            defaults = [name for name in self.config.get("_use_default_values", []) if name != "trained_betas"]
            self.register_to_config(trained_betas=betas.tolist(), _use_default_values=defaults)
        self._finish(process)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample itself."""
        return sample

    def path_noise(
        self,
        shape: Sequence[int],
        timesteps: Tensor,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Noise [B, M, *S] of one path per sample of `shape` (B, *S) at timesteps [B, M] int64, on their device.

        For training: add_noise(sample, noise[:, m], timesteps[:, m]), m = 0 .. M - 1, are several times of one path.
        """
        process = self._process_on(timesteps.device)
        assert isinstance(process, KarhunenLoeveProcess)
        return process.draw_path_noise(shape, timesteps, generator, dtype)


class MomentumScheduler(_DiscreteScheduler):
    """DDIM (eta = 0) on the Fast Diffusion Model with discrete times, see `momentum_process`.

    The sample is never scaled; `scale_model_input` multiplies the network's input by the momentum's input scale.

    Args:
        num_train_timesteps, beta_start, beta_end, beta_schedule (linear or squaredcos_cap_v2): the base process.
        kind: natural, sigma, schedule or one.
        strength: of the momentum, at least 0.
        prediction_type, clip_sample, clip_sample_range, timestep_spacing: as for KarhunenLoeveScheduler.

    Raises:
        ValueError: an option that is unknown or out of range.
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = BETA_START,
        beta_end: float = BETA_END,
        beta_schedule: str = "linear",
        kind: str = "natural",
        strength: float = 1.0,
        prediction_type: str = "epsilon",
        clip_sample: bool = True,
        clip_sample_range: float = 1.0,
        timestep_spacing: str = "leading",
    ) -> None:
        self._finish(momentum_process(self._base(), kind, strength))


class MomentumEDMScheduler(LoopScheduler):
    """The Fast Diffusion Model on the sigma processes of Karras et al. 2022, with their preconditioning.

    The state is y + sigma n, `timesteps` are the c_noise that the network is told, `scale_model_input` multiplies by
    c_in, and `step` turns the network's output into a clean sample.

    Args:
        family: edm, vp or ve.
        input_scale: momentum (FDM), base (the family's own) or one.
        multiplier: FDM's m.
        solver: heun (algorithm 1 without churn; 2 N - 1 evaluations for N steps, `timesteps` repeats all but the
            first) or euler.
        prediction_type: what the network predicts: edm, epsilon, negative_epsilon or sample; None for the family's own
            (edm: edm, vp: epsilon, ve: negative_epsilon).
        num_train_timesteps: length of `timesteps` before `set_timesteps`.
        clip_sample, clip_sample_range: bound of the predicted clean sample.

    Raises:
        ValueError: an option that is unknown or out of range.
    """

    process: SigmaProcess

    @register_to_config
    def __init__(
        self,
        family: str = "edm",
        input_scale: str = "momentum",
        multiplier: float = 1.0,
        solver: str = "heun",
        prediction_type: str | None = None,
        num_train_timesteps: int = 1000,
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
    ) -> None:
        process = SigmaProcess(family, input_scale, multiplier)
        check_choice("solver", solver, SOLVERS)
        if prediction_type is not None:
            check_choice("prediction_type", prediction_type, process.targets)
        grid = process.grid(positive_count("num_train_timesteps", num_train_timesteps))
        self._prepare(process, grid, prediction_type or process.targets[0])

    @property
    def order(self) -> int:  # type: ignore[override]
        """Timesteps to a step: 2 for heun, 1 for euler."""
        return 2 if self.config.solver == "heun" else 1

    @property
    def sigmas(self) -> Tensor:
        """sigma of each of `timesteps` and the 0 at the end, float64 on the CPU."""
        return torch.tensor([level.sigma for level in self._levels], dtype=torch.float64)

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Choose the timesteps of a loop of `num_inference_steps` steps, float32 on `device`.

        Raises:
            ValueError: num_inference_steps below 1.
        """
        grid = self.process.grid(positive_count("num_inference_steps", num_inference_steps))
        levels = [self.process.level(sigma) for sigma in grid.timesteps]
        if self.config.solver == "heun":
            levels = [levels[0], *(level for level in levels[1:] for _ in range(2))]
        self._place(grid, levels, num_inference_steps, device)

    def sigma_of(self, timesteps: Tensor) -> Tensor:
        """sigma, float64, of what the network is told (c_noise, any shape): the inverse of the process'."""
        told = timesteps.double()
        if self.config.family == "vp":
            return vp_sigma(told / VP_TIME_SCALE)
        return (4.0 * told).exp() if self.config.family == "edm" else 2.0 * told.exp()

    def draw_timesteps(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Training times of `shape` from the family's distribution, as the network takes them, float32."""
        sigma = self.process.draw_times(shape, generator, generator.device)
        return self.process.c_noise(sigma).float()

    def get_target(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network must output for a clean sample [B, *S] with noise [B, *S] at timesteps [B], [B, *S].

        With the family's own prediction_type the loss of Karras et al. 2022 is its plain mean squared error.
        """
        sigma = self.sigma_of(timesteps.to(sample.device))
        return make_noised(self.process, in_wide_dtype(sample), in_wide_dtype(noise), sigma, self._target).target.to(
            sample.dtype
        )

    def _process_times(self, timesteps: Tensor) -> Tensor:
        return self.sigma_of(timesteps)

    def _move(self, x: Tensor, x0: Tensor, epsilon: Tensor, index: int) -> Tensor:
        here, there = self._levels[index], self._levels[index + 1]
        if self.config.solver == "euler" or there.sigma == 0.0:
            # Unlike DDIM's, the direction follows the clipped sample.
            return euler_step(x, x0, here, there)
        if index % 2 == 0:
            self._first_half = (x, x0)
            return euler_step(x, x0, here, there)
        if self._first_half is None:
            raise ValueError(
                f"timestep={self._times[index]} is the second half of a step of heun; begin with the first."
            )
        (start, start_x0), self._first_half = self._first_half, None
        return heun_correction(start, start_x0, self._levels[index - 1], x, x0, here)
