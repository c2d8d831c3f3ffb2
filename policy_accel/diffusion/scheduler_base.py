"""What the diffusers-compatible schedulers share: the place in the loop, the noising and the frame of a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from policy_accel.diffusion.grid import Grid
from policy_accel.diffusion.predictions import x0_and_epsilon
from policy_accel.diffusion.processes import CLEAN, Level, Process, per_sample
from policy_accel.diffusion.samplers import ddim_step, start_scale

try:
    # Two are handed on, so that the absence of diffusers is named in one place.
    from diffusers.configuration_utils import ConfigMixin
    from diffusers.configuration_utils import register_to_config as register_to_config
    from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
    from diffusers.schedulers.scheduling_utils import SchedulerMixin as SchedulerMixin
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "diffusers":
        raise
    raise ModuleNotFoundError(
        "policy_accel.diffusion.schedulers needs diffusers; pip install '.[diffusers]' in our checkout",
        name="diffusers",
    ) from error


def positive_count(field: str, value: int) -> int:
    """Return `value` when it is an integer of at least 1, else raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{field}={value} must be an integer of at least 1.")
    return value


def bound(clip_sample: bool, clip_sample_range: float) -> float | None:
    """The bound of the clean sample, None for no bound; raise ValueError unless it is positive."""
    if clip_sample and not clip_sample_range > 0:
        raise ValueError(f"clip_sample_range={clip_sample_range} must be positive; or choose clip_sample=False.")
    return clip_sample_range if clip_sample else None


def in_wide_dtype(x: Tensor) -> Tensor:
    """`x` in the dtype that the arithmetic is done in."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


class LoopScheduler(SchedulerMixin, ConfigMixin):
    """What the three schedulers share: the place in the loop, the noising and the frame of a step."""

    order = 1
    config: Any
    process: Process
    timesteps: Tensor
    num_inference_steps: int | None

    def _prepare(self, process: Any, grid: Grid, target: str) -> None:
        """Set what does not change after the constructor, and `timesteps` to those of training."""
        self._clip = bound(self.config.clip_sample, self.config.clip_sample_range)
        self.process = self._placed = process
        self._target = target
        self._place(grid, [process.level(t) for t in grid.timesteps], None, None)

    def _place(self, grid: Grid, levels: Sequence[Level], steps: int | None, device: torch.device | str | None) -> None:
        """Make `levels` those of the loop, one for each of `timesteps`."""
        self._grid = grid
        self._levels = (*levels, CLEAN)
        dtype = torch.int64 if isinstance(levels[0].time, int) else torch.float32
        times = torch.tensor([level.time for level in levels], dtype=dtype)
        self._times = times.tolist()
        self.timesteps = times.to(device)
        self.num_inference_steps = steps
        self.is_scale_input_called = False
        self._step_index: int | None = None
        self._begin_index: int | None = None
        self._first_half: tuple[Tensor, Tensor] | None = None

    def _process_times(self, timesteps: Tensor) -> Tensor:
        """The process' own times at what the network is told."""
        return timesteps

    def _process_on(self, device: torch.device) -> Process:
        """The process with its tables on `device`, which they reach once."""
        process: Process = self._placed.to(device)
        self._placed = process
        return process

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the noise that the loop starts from; ask after `set_timesteps`."""
        return start_scale(self.process, self._grid)

    @property
    def step_index(self) -> int | None:
        """Number of the next step in `timesteps`; None before the first and after the last."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Number of the first step, if `set_begin_index` gave it."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start the loop at timesteps[begin_index]; then its first timestep need not be read from the device."""
        self._begin_index = begin_index

    def _find_step(self, timestep: Any) -> int:
        """Number of the step at `timestep`; simply the next one where reading it would wait for the device."""
        if self.num_inference_steps is None:
            raise ValueError(f"timestep={timestep} is none of a loop yet; call set_timesteps first.")
        if isinstance(timestep, Tensor) and timestep.numel() != 1:
            raise ValueError(f"timestep must be one of scheduler.timesteps, not a tensor of {tuple(timestep.shape)}.")
        index = self._begin_index if self._step_index is None else self._step_index
        on_device = isinstance(timestep, Tensor) and timestep.device.type != "cpu"
        if index is not None and (on_device or self._times[index] == timestep):
            return index
        value = timestep.item() if isinstance(timestep, Tensor) else timestep
        if value not in self._times:
            raise ValueError(f"timestep={value} is not one of scheduler.timesteps; pass those, one after the other.")
        # Heun repeats a time: the last one is where a step starts.
        return len(self._times) - 1 - self._times[::-1].index(value)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The network's input [B, *S] of a sample [B, *S].

        While sampling `timestep` is one of `timesteps`; while training it is a tensor [B] of what the network is told.
        """
        self.is_scale_input_called = True
        wide = in_wide_dtype(sample)
        if isinstance(timestep, Tensor) and timestep.ndim > 0:
            times = self._process_times(timestep.to(sample.device))
            scales = self._process_on(sample.device).coefficients(times).input_scale
            return (per_sample(scales, wide) * wide).to(sample.dtype)
        self._step_index = self._find_step(timestep)
        scale = self._levels[self._step_index].input_scale
        return sample if scale == 1.0 else (scale * wide).to(sample.dtype)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t [B, *S] of clean samples [B, *S] with noise [B, *S] at timesteps [B] (or [1]), not yet scaled."""
        times = self._process_times(timesteps.to(original_samples.device))
        process = self._process_on(original_samples.device)
        return process.diffuse(in_wide_dtype(original_samples), in_wide_dtype(noise), times).to(original_samples.dtype)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """Lead a sample [B, *S] from `timestep` to the next one by the network's output [B, *S].

        `generator` is there because pipelines pass one: nothing here is random.

        Raises:
            ValueError: `set_timesteps` was not called, `timestep` is none of them, or the network was given an input
                that `scale_model_input` had to scale and did not.
        """
        index = self._find_step(timestep)
        level = self._levels[index]
        if level.input_scale != 1.0 and not self.is_scale_input_called:
            raise ValueError(
                f"model_output belongs to an input that {type(self).__name__} scales, but scale_model_input was never "
                "called; call it before the network (DDPMPipeline and DDIMPipeline do not, so use another)."
            )
        x = in_wide_dtype(sample)
        x0, epsilon = x0_and_epsilon(model_output.to(x.dtype), x, level, self._target, self._clip)
        moved = self._move(x, x0, epsilon, index)
        self._step_index = index + 1 if index + 1 < len(self._times) else None
        if not return_dict:
            return moved.to(sample.dtype), x0.to(sample.dtype)
        return DDIMSchedulerOutput(prev_sample=moved.to(sample.dtype), pred_original_sample=x0.to(sample.dtype))

    def _move(self, x: Tensor, x0: Tensor, epsilon: Tensor, index: int) -> Tensor:
        """Where step `index` leads x, given its clipped clean sample and its noise: DDIM."""
        return ddim_step(x0, epsilon, self._levels[index + 1])
