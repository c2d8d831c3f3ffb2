"""DDIM over integer timesteps for any alpha and sigma, with the arguments of diffusers' DDIMScheduler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from policy_accel.diffusion.grid import SPACINGS, Grid
from policy_accel.diffusion.learned_variance import step_variances
from policy_accel.diffusion.processes import CLEAN, DiscreteProcess, Level, per_sample, vp_process_of
from policy_accel.diffusion.samplers import ddim_step
from policy_accel.diffusion.scheduler_arguments import check_one_given, falling, positive_count
from policy_accel.diffusion.scheduler_base import (
    DDIMSchedulerOutput,
    LoopScheduler,
    in_wide_dtype,
    randn_tensor,
)
from policy_accel.diffusion.schedules import SCHEDULES, alpha_bar_of, alpha_bar_table, zero_terminal_snr
from policy_accel.errors import check_choice

PREDICTION_TYPES = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}


class DiscreteScheduler(LoopScheduler):
    """DDIM over integer timesteps, for any alpha and sigma.

    Attributes:
        betas, alphas, alphas_cumprod: [T] float64 of the variance-preserving process of the same signal-to-noise ratio,
            alphas_cumprod = alpha^2 / (alpha^2 + sigma^2): where others read that ratio.
        final_alpha_cumprod: that of where the last step leads, [] float64.
    """

    process: DiscreteProcess

    def _base(self, betas: Sequence[float] | None, smallest: float = 0.0) -> DiscreteProcess:
        """The variance-preserving process of `betas`, or of the config's schedule; checks what the discrete ones share.

        With rescale_betas_zero_snr alpha_bar falls to 0, but nowhere below `smallest`.
        """
        config = self.config
        timesteps = positive_count("num_train_timesteps", config.num_train_timesteps)
        check_choice("beta_schedule", config.beta_schedule, SCHEDULES)
        _ = self._target  # checks prediction_type
        check_choice("timestep_spacing", config.timestep_spacing, SPACINGS)
        offset = config.steps_offset
        if isinstance(offset, bool) or not isinstance(offset, int) or offset < 0:
            raise ValueError(f"steps_offset={offset} must be an integer of at least 0.")
        if betas is None:
            alpha_bar = alpha_bar_table(
                config.beta_schedule, timesteps, beta_start=config.beta_start, beta_end=config.beta_end
            )
        else:
            table = torch.as_tensor(betas, dtype=torch.float64)
            alpha_bar = alpha_bar_of(table, "trained_betas")
            self._record(trained_betas=table.tolist(), num_train_timesteps=len(table))
        if config.rescale_betas_zero_snr:
            alpha_bar = zero_terminal_snr(alpha_bar).clamp(min=smallest)
        return vp_process_of(alpha_bar)

    @property
    def _target(self) -> str:
        return PREDICTION_TYPES[check_choice("prediction_type", self.config.prediction_type, tuple(PREDICTION_TYPES))]

    def _finish(self, process: DiscreteProcess) -> None:
        self._prepare(process)
        # Read once: a step off the grid reads no table.
        self._of_time = [process.level(t) for t in range(process.timesteps)]
        self._final = CLEAN if self.config.set_alpha_to_one else self._of_time[0]
        self._place(Grid.of(range(process.timesteps - 1, -1, -1)), self._of_time[::-1], None, None)
        alpha_bar = process.log_snr.sigmoid()
        alphas = alpha_bar / torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
        self.betas, self.alphas, self.alphas_cumprod = 1.0 - alphas, alphas, alpha_bar
        self.final_alpha_cumprod = alpha_bar.new_ones(()) if self.config.set_alpha_to_one else alpha_bar[0]

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        timesteps: Any = None,
    ) -> None:
        """Choose the timesteps of a loop, on `device`; steps lead from each to the next, and then to the clean sample.

        Args:
            num_inference_steps: their number; or
            timesteps: themselves, noisy to clean.

        Raises:
            ValueError: both or none of these, not 1 <= num_inference_steps <= num_train_timesteps, timesteps that do
                not fall, or one that is none of the training's.
        """
        check_one_given(num_inference_steps=num_inference_steps, timesteps=timesteps)
        count = self.process.timesteps
        if num_inference_steps is None:
            times = falling("timesteps", timesteps)
            why = ""
        elif (steps := positive_count("num_inference_steps", num_inference_steps)) > count:
            raise ValueError(f"num_inference_steps={steps} is more than num_train_timesteps={count}.")
        else:
            offset = self.config.steps_offset if self.config.timestep_spacing == "leading" else 0
            grid = self.process.grid(steps, self.config.timestep_spacing)
            times = [t + offset for t in grid.timesteps]
            why = f" (steps_offset={offset})" if offset else ""
        for time in times:
            if not self._is_of_training(time):
                raise ValueError(f"timesteps: {time:g}{why} must be an integer from 0 to {count - 1}.")
        chosen = Grid.of([int(time) for time in times])
        self._place(chosen, [self._of_time[t] for t in map(int, times)], len(times), device)

    def _is_of_training(self, time: float) -> bool:
        return 0 <= time < self.process.timesteps and time == int(time)

    def _level(self, time: int) -> Level:
        return self._final if time < 0 else self._of_time[time]

    def _off_grid(self, time: float) -> tuple[Level, Level]:
        """As diffusers' DDIM: T // n back, T and n the numbers of timesteps in training and in the loop."""
        count = self.process.timesteps
        if not self._is_of_training(time):
            raise ValueError(f"timestep={time} must be an integer from 0 to {count - 1}.")
        here = int(time)
        return self._level(here), self._level(here - count // (self.num_inference_steps or count))

    def _get_variance(self, timestep: int, prev_timestep: int) -> Tensor:
        """Variance of the noise of a step with eta = 1, [] float32; the name is the one by which others ask DDIM's."""
        return torch.tensor(_posterior_variance(self._level(timestep), self._level(prev_timestep)))

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = False,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """Lead a sample [B, *S] from `timestep` to the next one by the network's output [B, *S] (Song et al. 2021,
        equation 12).

        A timestep that is none of `timesteps` leads T // n back, T and n the numbers of timesteps in training and in
        the loop.

        Args:
            eta: 0 is DDIM, 1 has the small variance of Ho et al. 2020.
            use_clipped_model_output: take the noise from the bounded clean sample, not the network's own.
            generator: of the noise where eta is above 0 (one, or one for each sample).
            variance_noise: that noise [B, *S] itself.

        Raises:
            ValueError: `timestep` is none of the training's, eta not in [0, 1], a generator beside variance_noise, or
                the network was never given the input that `scale_model_input` makes.
        """
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"eta={eta} must lie between 0 and 1.")
        place = self._find(timestep)
        here, there = place.here, place.there
        x = in_wide_dtype(sample)
        x0, epsilon = self._predicted(model_output, x, here)
        if use_clipped_model_output:
            epsilon = (x - here.alpha * x0) / here.sigma
        if eta == 0.0:
            moved = ddim_step(x0, epsilon, there)
        else:
            variance = eta**2 * _posterior_variance(here, there)
            if variance_noise is None:
                variance_noise = randn_tensor(
                    model_output.shape, generator=generator, device=model_output.device, dtype=model_output.dtype
                )
            elif generator is not None:
                raise ValueError("generator and variance_noise: give one of them, not both.")
            moved = there.alpha * x0 + math.sqrt(max(there.sigma**2 - variance, 0.0)) * epsilon
            moved = moved + math.sqrt(variance) * variance_noise.to(x.dtype)
        return self._finish_step(moved, x0, place, sample.dtype, return_dict)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The target of v-prediction, alpha_t noise - sigma_t sample (Salimans & Ho 2022, section 4), [B, *S]."""
        at = self._process_on(sample.device).coefficients(timesteps.to(sample.device))
        clean, wide = in_wide_dtype(sample), in_wide_dtype(noise)
        return (per_sample(at.alpha, wide) * wide - per_sample(at.sigma, clean) * clean).to(sample.dtype)


def _posterior_variance(here: Level, there: Level) -> float:
    return max(step_variances(here.alpha, here.sigma, there.alpha, there.sigma)[1], 0.0)
