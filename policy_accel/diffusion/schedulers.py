"""Schedulers for the `diffusers` library: its pipelines and training loops on the processes of this package.

A network trained here is sampled by a loop of diffusers, and one trained by such a loop (`add_noise`,
`scale_model_input`) is sampled here:

    for t in scheduler.timesteps:
        prediction = model(scheduler.scale_model_input(sample, t), t)
        sample = scheduler.step(prediction, t, sample).prev_sample

Coefficients are float64 until they meet the sample; half-precision samples are computed in float32 and returned in
their own dtype. A loop waits for the device at most once, to find where it starts (never after `set_begin_index`);
timesteps that are numbers or lie on the CPU may be given in any order, and need not be of `timesteps`. Before
`set_timesteps` these are those of training, and steps lead through them.

DDPMPipeline and DDIMPipeline never call `scale_model_input` and ignore `init_noise_sigma`. Of these schedulers they
suit KarhunenLoeveScheduler alone, with any marginal but `raw`. DDIMPipeline makes a DDIMScheduler of the config that it
is given, which is then the same process; so may any scheduler of diffusers be made that takes `trained_betas`.
Which of diffusers' own tests hold is told in docs/how_to/own_loop.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from policy_accel.diffusion.continuous import GRID_EXPONENT, SigmaProcess
from policy_accel.diffusion.discrete_scheduler import DiscreteScheduler
from policy_accel.diffusion.karhunen_loeve import KarhunenLoeveProcess, karhunen_loeve_process
from policy_accel.diffusion.momentum import momentum_process
from policy_accel.diffusion.processes import SIGMA_DATA
from policy_accel.diffusion.scheduler_base import KarrasDiffusionSchedulers, SchedulerMixin, register_to_config
from policy_accel.diffusion.schedules import BETA_END, BETA_START
from policy_accel.diffusion.sigma_scheduler import SigmaScheduler

# A pipeline of diffusers loads a class only from a module that has SchedulerMixin.
__all__ = ["KarhunenLoeveScheduler", "MomentumEDMScheduler", "MomentumScheduler", "SchedulerMixin"]

SMALLEST_ALPHA_BAR = 2.0**-24  # as EulerDiscreteScheduler's: a state that is not scaled has no place for pure noise


class KarhunenLoeveScheduler(DiscreteScheduler):
    """DDIM on the truncated Karhunen-Loeve process, see `karhunen_loeve_process`.

    Args:
        num_train_timesteps, beta_start, beta_end, beta_schedule (linear, scaled_linear or squaredcos_cap_v2): the base.
        modes: Karhunen-Loeve modes K, at least 1; there are no more than timesteps, and a larger number means all.
        marginal: matched, vp_equivalent or raw. raw starts from `init_noise_sigma`, not from unit noise.
        clock: time or variance.
        prediction_type: epsilon, sample or v_prediction.
        clip_sample, clip_sample_range: bound of the predicted clean sample.
        timestep_spacing: leading, trailing or linspace, see `timestep_grid`.
        trained_betas: betas of the base, instead of its schedule; num_train_timesteps is then their number. Leave it
            out with vp_equivalent, where the config holds the table that results, so that schedulers of diffusers made
            from it agree (in float32); loading checks it.
        set_alpha_to_one: the last step leads to the clean sample; else to the level of timestep 0.
        steps_offset: added to the timesteps of leading.
        thresholding, dynamic_thresholding_ratio, sample_max_value: bound each predicted clean sample by that quantile
            of its own magnitudes instead, see `thresholded`.
        rescale_betas_zero_snr: make the last timestep of the base pure noise (Lin et al. 2023), which a prediction of
            epsilon cannot be sampled from.

    Raises:
        ValueError: an option that is unknown or out of range, or betas that are not those of the other options.
    """

    process: KarhunenLoeveProcess
    # Those that take its betas; with `raw` they are other processes.
    _compatibles: ClassVar[list[str]] = [
        one.name for one in KarrasDiffusionSchedulers if one.name != "EDMEulerScheduler"
    ]

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
        set_alpha_to_one: bool = True,
        steps_offset: int = 0,
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        base = self._base(None if marginal == "vp_equivalent" else trained_betas)
        count = min(modes, base.timesteps) if isinstance(modes, int) else modes
        process = karhunen_loeve_process(base, count, marginal, clock)
        if marginal == "vp_equivalent":
            betas = process.betas
            given = betas if trained_betas is None else torch.as_tensor(trained_betas, dtype=torch.float64)
            if given.shape != betas.shape or not torch.allclose(given, betas, rtol=1e-6, atol=1e-9):
                raise ValueError(
                    "trained_betas are not those of the other options; leave them out with marginal=vp_equivalent, and "
                    "name the process by beta_schedule, beta_start, beta_end, modes and clock."
                )
            self._record(trained_betas=betas.tolist(), num_train_timesteps=len(betas))
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


class MomentumScheduler(DiscreteScheduler):
    """DDIM on the Fast Diffusion Model with discrete times, see `momentum_process`.

    The sample is never scaled; `scale_model_input` multiplies the network's input by the momentum's input scale.

    Args:
        num_train_timesteps, beta_start, beta_end, beta_schedule (linear, scaled_linear or squaredcos_cap_v2): the base.
        kind: natural, sigma, schedule or one.
        strength: of the momentum, at least 0.
        trained_betas: betas of the base, instead of its schedule; num_train_timesteps is then their number.
        rescale_betas_zero_snr: as for KarhunenLoeveScheduler, but the last timestep keeps a trace of the sample
            (alpha_bar 2^-24).
        Others: as for KarhunenLoeveScheduler.

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
        trained_betas: Sequence[float] | None = None,
        set_alpha_to_one: bool = True,
        steps_offset: int = 0,
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        self._record(kind=kind, strength=strength)
        self._finish(momentum_process(self._base(trained_betas, SMALLEST_ALPHA_BAR), kind, strength))


class MomentumEDMScheduler(SigmaScheduler):
    """The Fast Diffusion Model on the sigma processes of Karras et al. 2022, with their preconditioning.

    The state is y + sigma n, `timesteps` are the c_noise that the network is told, `scale_model_input` multiplies by
    c_in, and `step` turns the network's output into a clean sample.

    Args:
        family: edm, vp or ve.
        input_scale: momentum (FDM), base (the family's own) or one.
        multiplier: FDM's m.
        solver: heun (algorithm 1 without churn; 2 N - 1 evaluations for N steps, `timesteps` repeats all but the
            first) or euler.
        prediction_type: what the network predicts: edm, epsilon, negative_epsilon, sample or v_prediction (the negative
            of edm, as diffusers' EDM schedulers mean it); None for the family's own (edm: edm, vp: epsilon, ve:
            negative_epsilon).
        num_train_timesteps: length of `timesteps` before `set_timesteps`; steps of Euler lead through them.
        clip_sample, clip_sample_range, thresholding, dynamic_thresholding_ratio, sample_max_value: as for
            KarhunenLoeveScheduler.
        sigma_min, sigma_max: ends of the sigmas of a loop, None for the family's own.
        rho: they are evenly spaced in sigma^(1 / rho).
        sigma_data: standard deviation of the data.

    Raises:
        ValueError: an option that is unknown or out of range.
    """

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
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        rho: float = GRID_EXPONENT,
        sigma_data: float = SIGMA_DATA,
    ) -> None:
        self._record(family=family, input_scale=input_scale)
        self._finish(SigmaProcess(family, input_scale, multiplier, sigma_data))
