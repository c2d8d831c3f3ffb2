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
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from policy_accel.diffusion.continuous import VP_TIME_SCALE, SigmaProcess
from policy_accel.diffusion.karhunen_loeve import KarhunenLoeveProcess, karhunen_loeve_process
from policy_accel.diffusion.momentum import momentum_process, vp_sigma
from policy_accel.diffusion.objective import make_noised
from policy_accel.diffusion.processes import CLEAN, DiscreteProcess, Level, per_sample, vp_process
from policy_accel.diffusion.samplers import SPACINGS, Grid, predicted_sample, start_scale, timestep_grid
from policy_accel.diffusion.schedules import SCHEDULES
from policy_accel.errors import UserError, did_you_mean

try:
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.schedulers.scheduling_utils import SchedulerMixin
    from diffusers.utils import BaseOutput
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "diffusers":
        raise
    raise UserError(
        "policy_accel.diffusion.schedulers needs diffusers; pip install 'policy-accel[diffusers]'"
    ) from error

PREDICTION_TYPES = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}
SIGMA_PREDICTION_TYPES = ("edm", "epsilon", "negative_epsilon", "sample")
SOLVERS = ("heun", "euler")


@dataclass
class SchedulerOutput(BaseOutput):
    """The sample at the next timestep and the (clipped) clean sample that the network predicts, each [B, *S]."""

    prev_sample: Tensor
    pred_original_sample: Tensor


def _choice(field: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise UserError(f"{field} '{value}' is unknown; {did_you_mean(value, known)}")
    return value


def _count(field: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{field}={value} must be an integer of at least 1.")
    return value


def _wide(x: Tensor) -> Tensor:
    """`x` in the dtype that the arithmetic is done in."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _travel(x: Tensor, x0: Tensor, own_x0: Tensor, here: Level, there: Level) -> Tensor:
    """alpha' x0 + sigma' epsilon, epsilon = (x - alpha own_x0) / sigma (Song et al. 2021, equation 12, eta = 0)."""
    kept = there.sigma / here.sigma
    return kept * x + there.alpha * x0 - (kept * here.alpha) * own_x0


class _Scheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """What the three schedulers share: the place in the loop, the noising and the frame of a step."""

    order = 1
    config: Any
    process: DiscreteProcess | SigmaProcess
    timesteps: Tensor
    num_inference_steps: int | None

    def _prepare(self, process: Any, grid: Grid, target: str) -> None:
        """Set what does not change after the constructor, and `timesteps` to those of training."""
        config = self.config
        if config.clip_sample and not config.clip_sample_range > 0:
            raise UserError(f"clip_sample_range={config.clip_sample_range} must be positive; or set clip_sample=False.")
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

    def _process_on(self, device: torch.device) -> Any:
        """The process with its tables on `device`, which they reach once."""
        if isinstance(self._placed, DiscreteProcess) and self._placed.alphas.device != device:
            self._placed = self._placed.to(device)
        return self._placed

    def __len__(self) -> int:
        return self.config.num_train_timesteps

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
            raise UserError("The scheduler has no timesteps to step through; call set_timesteps first.")
        if isinstance(timestep, Tensor) and timestep.numel() != 1:
            raise UserError(f"step takes one of scheduler.timesteps, not a tensor of shape {tuple(timestep.shape)}.")
        index = self._begin_index if self._step_index is None else self._step_index
        on_device = isinstance(timestep, Tensor) and timestep.device.type != "cpu"
        if index is not None and (on_device or self._times[index] == timestep):
            return index
        value = timestep.item() if isinstance(timestep, Tensor) else timestep
        if value not in self._times:
            raise UserError(f"timestep {value} is not one of scheduler.timesteps; pass those, one after the other.")
        # Heun repeats a time: the last one is where a step starts.
        return len(self._times) - 1 - self._times[::-1].index(value)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The network's input [B, *S] of a sample [B, *S].

        While sampling `timestep` is one of `timesteps`; while training it is a tensor [B] of what the network is told.
        """
        self.is_scale_input_called = True
        wide = _wide(sample)
        if isinstance(timestep, Tensor) and timestep.ndim > 0:
            times = self._process_times(timestep.to(sample.device))
            scale = self._process_on(sample.device).coefficients(times).input_scale
            return (per_sample(scale, wide) * wide).to(sample.dtype)
        self._step_index = self._find_step(timestep)
        scale = self._levels[self._step_index].input_scale
        return sample if scale == 1.0 else (scale * wide).to(sample.dtype)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t [B, *S] of clean samples [B, *S] with noise [B, *S] at timesteps [B] (or [1]), not yet scaled."""
        times = self._process_times(timesteps.to(original_samples.device))
        process = self._process_on(original_samples.device)
        return process.diffuse(_wide(original_samples), _wide(noise), times).to(original_samples.dtype)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor, Tensor]:
        """Lead a sample [B, *S] from `timestep` to the next one by the network's output [B, *S].

        `generator` is there because pipelines pass one: nothing here is random.

        Raises:
            UserError: `set_timesteps` was not called, `timestep` is none of them, or the network was given an input
                that `scale_model_input` had to scale and did not.
        """
        index = self._find_step(timestep)
        level = self._levels[index]
        if level.input_scale != 1.0 and not self.is_scale_input_called:
            raise UserError(
                f"{type(self).__name__} scales the network's input, but scale_model_input was never called; call it "
                "before the network (DDPMPipeline and DDIMPipeline do not, so use another)."
            )
        x = _wide(sample)
        own_x0 = predicted_sample(model_output.to(x.dtype), x, level, self._target)
        limit = self.config.clip_sample_range
        x0 = own_x0.clamp(-limit, limit) if self.config.clip_sample else own_x0
        moved = self._move(x, x0, own_x0, index)
        self._step_index = index + 1 if index + 1 < len(self._times) else None
        if not return_dict:
            return moved.to(sample.dtype), x0.to(sample.dtype)
        return SchedulerOutput(prev_sample=moved.to(sample.dtype), pred_original_sample=x0.to(sample.dtype))

    def _move(self, x: Tensor, x0: Tensor, own_x0: Tensor, index: int) -> Tensor:
        """Where step `index` leads x, given the clean sample clipped and as the network had it: DDIM."""
        return _travel(x, x0, own_x0, self._levels[index], self._levels[index + 1])


class _DiscreteScheduler(_Scheduler):
    """DDIM with eta = 0 over integer timesteps, for any alpha and sigma."""

    process: DiscreteProcess

    def _base(self) -> DiscreteProcess:
        """The variance-preserving process of the config's betas; checks the rest of what the discrete ones share."""
        config = self.config
        timesteps = _count("num_train_timesteps", config.num_train_timesteps)
        _choice("beta_schedule", config.beta_schedule, SCHEDULES)
        _choice("prediction_type", config.prediction_type, tuple(PREDICTION_TYPES))
        _choice("timestep_spacing", config.timestep_spacing, SPACINGS)
        return vp_process(config.beta_schedule, timesteps, beta_start=config.beta_start, beta_end=config.beta_end)

    def _finish(self, process: DiscreteProcess) -> None:
        times = Grid.of(range(process.timesteps - 1, -1, -1))
        self._prepare(process, times, PREDICTION_TYPES[self.config.prediction_type])

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Choose the timesteps of a loop, on `device`; steps lead from each to the next, and then to the clean sample.

        Raises:
            UserError: not 1 <= num_inference_steps <= num_train_timesteps.
        """
        timesteps = self.config.num_train_timesteps
        if _count("num_inference_steps", num_inference_steps) > timesteps:
            raise UserError(f"num_inference_steps={num_inference_steps} is more than num_train_timesteps={timesteps}.")
        grid = timestep_grid(timesteps, num_inference_steps, self.config.timestep_spacing)
        self._place(grid, [self.process.level(int(t)) for t in grid.timesteps], num_inference_steps, device)

    @property
    def alphas_cumprod(self) -> Tensor:
        """alpha^2 / (alpha^2 + sigma^2), [T] float64: what others read a scheduler's signal-to-noise ratio from."""
        return self.process.log_snr.sigmoid()

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The target of v-prediction, alpha_t noise - sigma_t sample (Salimans & Ho 2022, section 4), [B, *S]."""
        at = self._process_on(sample.device).coefficients(timesteps.to(sample.device))
        clean, wide = _wide(sample), _wide(noise)
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
        UserError: an option that is unknown or out of range, or betas that are not those of the other options.
    """

    process: KarhunenLoeveProcess

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
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
                raise UserError(
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
        return self._process_on(timesteps.device).draw_path_noise(shape, timesteps, generator, dtype)


class MomentumScheduler(_DiscreteScheduler):
    """DDIM (eta = 0) on the Fast Diffusion Model with discrete times, see `momentum_process`.

    The sample is never scaled; `scale_model_input` multiplies the network's input by the momentum's input scale.

    Args:
        num_train_timesteps, beta_start, beta_end, beta_schedule (linear or squaredcos_cap_v2): the base process.
        kind: natural, sigma, schedule or one.
        strength: of the momentum, at least 0.
        prediction_type, clip_sample, clip_sample_range, timestep_spacing: as for KarhunenLoeveScheduler.

    Raises:
        UserError: an option that is unknown or out of range.
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        kind: str = "natural",
        strength: float = 1.0,
        prediction_type: str = "epsilon",
        clip_sample: bool = True,
        clip_sample_range: float = 1.0,
        timestep_spacing: str = "leading",
    ) -> None:
        self._finish(momentum_process(self._base(), kind, strength))


class MomentumEDMScheduler(_Scheduler):
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
        UserError: an option that is unknown or out of range.
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
        _choice("solver", solver, SOLVERS)
        if prediction_type is not None:
            _choice("prediction_type", prediction_type, SIGMA_PREDICTION_TYPES)
        grid = process.grid(_count("num_train_timesteps", num_train_timesteps))
        self._prepare(process, grid, prediction_type or process.target)

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
            UserError: num_inference_steps below 1.
        """
        grid = self.process.grid(_count("num_inference_steps", num_inference_steps))
        levels = [self.process.level(sigma) for sigma in grid.timesteps]
        if self.config.solver == "heun":
            levels = [levels[0], *(level for level in levels[1:] for _ in range(2))]
        self._place(grid, levels, num_inference_steps, device)

    def sigma_of(self, timesteps: Tensor) -> Tensor:
        """sigma, float64, of what the network is told (c_noise, any shape): the inverse of the preconditioning's."""
        told = timesteps.double()
        if self.config.family == "vp":
            return vp_sigma(told / VP_TIME_SCALE)
        return (4.0 * told).exp() if self.config.family == "edm" else 2.0 * told.exp()

    def draw_timesteps(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Training times of `shape` by the family's own law, as the network is told them, float32."""
        sigma = self.process.draw_times(shape, generator, generator.device)
        return self.process.preconditioning(sigma).c_noise.float()

    def get_target(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network must output for a clean sample [B, *S] with noise [B, *S] at timesteps [B], [B, *S].

        With the family's own prediction_type the loss of Karras et al. 2022 is its plain mean squared error.
        """
        sigma = self.sigma_of(timesteps.to(sample.device))
        return make_noised(self.process, _wide(sample), _wide(noise), sigma, self._target).target.to(sample.dtype)

    def _process_times(self, timesteps: Tensor) -> Tensor:
        return self.sigma_of(timesteps)

    def _move(self, x: Tensor, x0: Tensor, own_x0: Tensor, index: int) -> Tensor:
        here, there = self._levels[index], self._levels[index + 1]
        if self.config.solver == "euler" or there.sigma == 0.0:
            # Unlike DDIM's, the direction follows the clipped sample.
            return _travel(x, x0, x0, here, there)
        slope = (x - x0) / here.sigma
        if index % 2 == 0:
            self._first_half = (x, slope)
            return x + (there.sigma - here.sigma) * slope
        if self._first_half is None:
            raise UserError("A step of solver=heun starts at the last of two equal timesteps; begin the loop there.")
        (start, start_slope), self._first_half = self._first_half, None
        return start + 0.5 * (here.sigma - self._levels[index - 1].sigma) * (start_slope + slope)
