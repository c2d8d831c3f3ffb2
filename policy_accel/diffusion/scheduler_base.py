"""What the diffusers-compatible schedulers share: the place in the loop, the noising and the frame of a step."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from policy_accel.diffusion.grid import Grid
from policy_accel.diffusion.predictions import x0_and_epsilon
from policy_accel.diffusion.processes import CLEAN, Level, Process, per_sample
from policy_accel.diffusion.samplers import start_scale
from policy_accel.diffusion.scheduler_arguments import check_bounds
from policy_accel.extras import to_install

try:
    # Some are handed on, so that the absence of diffusers is named in one place.
    from diffusers.configuration_utils import ConfigMixin
    from diffusers.configuration_utils import register_to_config as register_to_config
    from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput as DDIMSchedulerOutput
    from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers as KarrasDiffusionSchedulers
    from diffusers.schedulers.scheduling_utils import SchedulerMixin as SchedulerMixin
    from diffusers.utils import DummyObject
    from diffusers.utils.torch_utils import randn_tensor as randn_tensor
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "diffusers":
        raise
    raise ModuleNotFoundError(
        f"policy_accel.diffusion.schedulers needs diffusers; {to_install('diffusers')}",
        name="diffusers",
    ) from error


def in_wide_dtype(x: Tensor) -> Tensor:
    """`x` in the dtype that the arithmetic is done in."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def thresholded(x0: Tensor, ratio: float, largest: float) -> Tensor:
    """Clean samples [B, *S] bounded by the `ratio` quantile s of their own magnitudes and divided by it, with s between
    1 and `largest`, or equal to a `largest` below 1 (dynamic thresholding, Saharia et al. 2022, section 2.3)."""
    s = torch.quantile(x0.flatten(1).abs(), ratio, dim=1).clamp(min=1.0, max=largest)
    s = per_sample(s, x0)
    return x0.clamp(-s, s) / s


class Place(NamedTuple):
    """Where a step starts and where it leads; `number` is that of `timesteps`, None for a time off the grid."""

    number: int | None
    here: Level
    there: Level


class LoopScheduler(SchedulerMixin, ConfigMixin):
    """What the three schedulers share: the place in the loop, the noising and the frame of a step."""

    order = 1
    config: Any
    process: Process
    timesteps: Tensor
    num_inference_steps: int | None
    _final: Level = CLEAN

    def _prepare(self, process: Any) -> None:
        """Check what every scheduler has and set what does not change after the constructor.

        Everything else is read from the config when it is needed: pipelines and training scripts change it.
        """
        check_bounds(self.config)
        self.process = self._placed = process

    @property
    def _target(self) -> str:
        """What the network predicts, see `x0_and_epsilon`."""
        raise NotImplementedError

    def _record(self, **values: Any) -> None:
        """Put values into the config that other schedulers made from it must get, or warn that they do not know."""
        if "_use_default_values" in self.config:
            # What a config calls a default is not handed on.
            values["_use_default_values"] = sorted(set(self.config["_use_default_values"]) - set(values))
        self.register_to_config(**values)

    def _place(self, grid: Grid, levels: Sequence[Level], steps: int | None, device: torch.device | str | None) -> None:
        """Make `levels` those of the loop, one for each of `timesteps`; `steps` is None for the loop of training."""
        self._grid = grid
        self._levels = (*levels, self._final)
        self._dtype = torch.int64 if isinstance(levels[0].time, int) else torch.float32
        times = torch.tensor([level.time for level in levels], dtype=self._dtype)
        self._times = times.tolist()
        self.timesteps = times.to(device)
        self.num_inference_steps = steps
        self.is_scale_input_called = False
        self._unscaled = 0
        self._step_index: int | None = None
        self._begin_index: int | None = None

    @classmethod
    def _get_compatibles(cls) -> list[type]:
        """The class itself, which diffusers does not hold, and those of `_compatibles` whose packages are installed."""
        return [cls, *(one for one in super()._get_compatibles() if not isinstance(one, DummyObject))]

    def _process_times(self, timesteps: Tensor) -> Tensor:
        """The process' own times at what the network is told."""
        return timesteps

    def _off_grid(self, time: float) -> tuple[Level, Level]:
        """Where a step at `time`, which is none of `timesteps`, starts and where it leads."""
        raise NotImplementedError

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
        """Number of the next step in `timesteps`; None before the first, after the last and off the grid."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Number of the first step, if `set_begin_index` gave it."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start the loop at timesteps[begin_index]; then its first timestep need not be read from the device."""
        self._begin_index = begin_index

    def _find(self, timestep: Any) -> Place:
        """The step at `timestep`; simply the next one where reading it would wait for the device."""
        if isinstance(timestep, Tensor) and timestep.numel() != 1:
            raise ValueError(f"timestep must be one of scheduler.timesteps, not a tensor of {tuple(timestep.shape)}.")
        index = self._begin_index if self._step_index is None else self._step_index
        on_device = isinstance(timestep, Tensor) and timestep.device.type != "cpu"
        if index is None or not on_device:
            time = timestep.item() if isinstance(timestep, Tensor) else timestep
            if time is None:
                raise ValueError("timestep=None must be a number, one of scheduler.timesteps.")
            if self._dtype == torch.float32:
                time = float(np.float32(time))
            if index is None or self._times[index] != time:
                if time not in self._times:
                    return Place(None, *self._off_grid(time))
                # Heun repeats a time: the last one is where a step starts.
                index = len(self._times) - 1 - self._times[::-1].index(time)
        return Place(index, self._levels[index], self._levels[index + 1])

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The network's input [B, *S] of a sample [B, *S].

        While sampling `timestep` is one number; while training it is a tensor [B] of what the network is told.
        """
        self.is_scale_input_called = True
        wide = in_wide_dtype(sample)
        if isinstance(timestep, Tensor) and timestep.ndim > 0:
            times = self._process_times(timestep.to(sample.device))
            scales = self._process_on(sample.device).coefficients(times).input_scale
            return (per_sample(scales, wide) * wide).to(sample.dtype)
        place = self._find(timestep)
        self._step_index = place.number
        scale = place.here.input_scale
        return sample if scale == 1.0 else (scale * wide).to(sample.dtype)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t [B, *S] of clean samples [B, *S] with noise [B, *S] at timesteps [B] (or [1]), not yet scaled."""
        times = self._process_times(timesteps.to(original_samples.device))
        process = self._process_on(original_samples.device)
        return process.diffuse(in_wide_dtype(original_samples), in_wide_dtype(noise), times).to(original_samples.dtype)

    def _predicted(self, model_output: Tensor, x: Tensor, here: Level) -> tuple[Tensor, Tensor]:
        """The bounded clean sample and the network's own noise, each [B, *S], of its output at x [B, *S].

        Raises:
            ValueError: an output that says nothing of the clean sample, or steps one after the other without
                `scale_model_input`, where the network's input must be scaled.
        """
        if here.input_scale != 1.0 and not self.is_scale_input_called:
            self._not_scaled()
        if here.alpha == 0.0 and self._target == "epsilon":
            raise ValueError(
                f"prediction_type=epsilon says nothing of a sample of pure noise, which timestep={here.time} has with "
                "rescale_betas_zero_snr; choose v_prediction or sample."
            )
        config = self.config
        clip = config.clip_sample_range if config.clip_sample and not config.thresholding else None
        x0, epsilon = x0_and_epsilon(model_output.to(x.dtype), x, here, self._target, clip)
        if config.thresholding:
            x0 = thresholded(x0, config.dynamic_thresholding_ratio, config.sample_max_value)
        return x0, epsilon

    def _not_scaled(self) -> None:
        """Warn of a step without `scale_model_input`, and refuse a loop of them."""
        self._unscaled += 1
        error = ValueError(
            f"model_output belongs to an input that {type(self).__name__} scales, but scale_model_input was never "
            "called; call it before the network (DDPMPipeline and DDIMPipeline do not, so use another)."
        )
        if self._unscaled == 1:
            warnings.warn(str(error), stacklevel=4)
        elif self._unscaled > 2:
            raise error

    def _finish_step(
        self, moved: Tensor, x0: Tensor, place: Place, dtype: torch.dtype, return_dict: bool
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """Go on to the next place; the results of `step` in the sample's `dtype`."""
        following = None if place.number is None else place.number + 1
        self._step_index = None if following == len(self._times) else following
        if not return_dict:
            return moved.to(dtype), x0.to(dtype)
        return DDIMSchedulerOutput(prev_sample=moved.to(dtype), pred_original_sample=x0.to(dtype))
