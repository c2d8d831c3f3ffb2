"""The sigma processes of Karras et al. 2022 as a scheduler: timesteps are what the network is told of sigma."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from policy_accel.diffusion.continuous import VP_TIME_SCALE, SigmaProcess, karras_sigmas
from policy_accel.diffusion.grid import Grid
from policy_accel.diffusion.momentum import vp_sigma
from policy_accel.diffusion.objective import make_noised
from policy_accel.diffusion.processes import CLEAN, Level
from policy_accel.diffusion.samplers import euler_step, heun_correction
from policy_accel.diffusion.scheduler_arguments import check_one_given, falling, positive_count
from policy_accel.diffusion.scheduler_base import (
    DDIMSchedulerOutput,
    LoopScheduler,
    Place,
    in_wide_dtype,
)
from policy_accel.errors import check_choice

SOLVERS = ("heun", "euler")


class SigmaScheduler(LoopScheduler):
    """Heun's or Euler's steps along sigma."""

    process: SigmaProcess

    def _finish(self, process: SigmaProcess) -> None:
        config = self.config
        check_choice("solver", config.solver, SOLVERS)
        low, high = process.grid_range
        low = low if config.sigma_min is None else config.sigma_min
        high = high if config.sigma_max is None else config.sigma_max
        if not 0 < low < high < math.inf:
            raise ValueError(f"sigma_min={low} and sigma_max={high} must satisfy 0 < sigma_min < sigma_max.")
        if not 0 < config.rho < math.inf:
            raise ValueError(f"rho={config.rho} must be positive.")
        self._sigma_range = (low, high)
        self._prepare(process)
        _ = self._target  # checks prediction_type
        self._place_sigmas(self._sigmas(positive_count("num_train_timesteps", config.num_train_timesteps)), None, None)

    @property
    def _target(self) -> str:
        prediction, known = self.config.prediction_type, self.process.targets
        if prediction is None:
            return known[0]
        return "edm" if self._negated else check_choice("prediction_type", prediction, (*known, "v_prediction"))

    @property
    def _negated(self) -> bool:
        return bool(self.config.prediction_type == "v_prediction")

    @property
    def order(self) -> int:  # type: ignore[override]
        """Timesteps to a step: 2 for heun, 1 for euler."""
        return 2 if self.config.solver == "heun" else 1

    @property
    def sigmas(self) -> Tensor:
        """sigma of each of `timesteps` and the 0 at the end, float64 on the CPU."""
        return torch.tensor([level.sigma for level in self._levels], dtype=torch.float64)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        sigmas: Any = None,
        timesteps: Any = None,
    ) -> None:
        """Choose the timesteps of a loop, float32 on `device`.

        Args:
            num_inference_steps: number of steps; or
            sigmas: where they start, noisy to clean, with or without a 0 at the end; or
            timesteps: the same as the network is told it.

        Raises:
            ValueError: not one of these, num_inference_steps below 1, or sigmas or timesteps that do not fall or are
                out of range.
        """
        check_one_given(num_inference_steps=num_inference_steps, sigmas=sigmas, timesteps=timesteps)
        if num_inference_steps is not None:
            chosen = self._sigmas(positive_count("num_inference_steps", num_inference_steps))
        elif sigmas is not None:
            chosen = falling("sigmas", sigmas)
            chosen = chosen[:-1] if chosen[-1] == 0 and len(chosen) > 1 else chosen
        else:
            chosen = [self._sigma_at(time) for time in falling("timesteps", timesteps)]
        if not chosen[-1] > 0:
            field = "timesteps" if sigmas is None else "sigmas"
            raise ValueError(f"{field}: the last one has sigma={chosen[-1]:g}, which must be above 0.")
        self._place_sigmas(chosen, len(chosen), device)

    def _sigmas(self, steps: int) -> list[float]:
        return list(karras_sigmas(steps, *self._sigma_range, self.config.rho))

    def _place_sigmas(self, sigmas: list[float], steps: int | None, device: torch.device | str | None) -> None:
        levels = [self.process.level(sigma) for sigma in sigmas]
        self._pairs = self.config.solver == "heun" and steps is not None
        self._first_half: tuple[Tensor, Tensor] | None = None
        if self._pairs:
            levels = [levels[0], *(level for level in levels[1:] for _ in range(2))]
        self._place(Grid.of(sigmas), levels, steps, device)

    def sigma_of(self, timesteps: Tensor) -> Tensor:
        """sigma, float64, of what the network is told (c_noise, any shape): the inverse of the process'."""
        told = timesteps.double()
        if self.config.family == "vp":
            return vp_sigma(told / VP_TIME_SCALE)
        return (4.0 * told).exp() if self.config.family == "edm" else 2.0 * told.exp()

    def _sigma_at(self, time: float) -> float:
        """sigma of one number that the network is told, within the range of training and of the loop."""
        sigma = float(self.sigma_of(torch.tensor(time, dtype=torch.float64)))
        most = max(self._sigma_range[1], self.process.time_range[1])
        if not 0 <= sigma <= most * (1 + 1e-5) or (time < 0 and self.config.family == "vp"):
            raise ValueError(
                f"timestep={time:g} stands for sigma={sigma:g}, which is not from 0 to {most:g}; pass those of "
                "scheduler.timesteps, not their numbers."
            )
        return sigma

    def draw_timesteps(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Training times of `shape` from the family's distribution, as the network takes them, float32."""
        sigma = self.process.draw_times(shape, generator, generator.device)
        return self.process.c_noise(sigma).float()

    def get_target(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network must output for a clean sample [B, *S] with noise [B, *S] at timesteps [B], [B, *S].

        With the family's own prediction_type the loss of Karras et al. 2022 is its plain mean squared error.
        """
        sigma = self.sigma_of(timesteps.to(sample.device))
        target = make_noised(self.process, in_wide_dtype(sample), in_wide_dtype(noise), sigma, self._target).target
        return (-target if self._negated else target).to(sample.dtype)

    def _process_times(self, timesteps: Tensor) -> Tensor:
        return self.sigma_of(timesteps)

    def _off_grid(self, time: float) -> tuple[Level, Level]:
        """A step of Euler to the first sigma of the loop below that of `time`."""
        here = self.process.level(self._sigma_at(time))
        return here, next((level for level in self._levels if level.sigma < here.sigma), CLEAN)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """Lead a sample [B, *S] from `timestep` to the next one by the network's output [B, *S].

        A timestep that is none of `timesteps` leads to the first sigma of the loop below its own, by a step of Euler.
        `generator` is there because pipelines pass one: nothing here is random.

        Raises:
            ValueError: `timestep` is out of range or the second half of a step of heun whose first was not taken, or
                the network was never given the input that `scale_model_input` makes.
        """
        place = self._find(timestep)
        x = in_wide_dtype(sample)
        x0, _ = self._predicted(-model_output if self._negated else model_output, x, place.here)
        moved = self._move(x, x0, place)
        return self._finish_step(moved, x0, place, sample.dtype, return_dict)

    def _move(self, x: Tensor, x0: Tensor, place: Place) -> Tensor:
        index, here, there = place
        if not self._pairs or index is None or there.sigma == 0.0:
            # Unlike DDIM's, the direction follows the clipped sample.
            return euler_step(x, x0, here, there) if here.sigma > 0.0 else x
        if index % 2 == 0:
            self._first_half = (x, x0)
            return euler_step(x, x0, here, there)
        if self._first_half is None:
            raise ValueError(
                f"timestep={self._times[index]} is the second half of a step of heun; begin with the first."
            )
        (start, start_x0), self._first_half = self._first_half, None
        return heun_correction(start, start_x0, self._levels[index - 1], x, x0, here)
