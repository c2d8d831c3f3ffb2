"""From settings to an objective; combinations that make no sense are refused with the reason."""

from __future__ import annotations

from policy_accel.acceleration.config import AccelerationConfig
from policy_accel.acceleration.nearest_noise import NearestNoiseConfig
from policy_accel.acceleration.noise_choices import NoiseConfig
from policy_accel.acceleration.path import FreshSamplesConfig, PathConfig, SharedPathConfig
from policy_accel.diffusion.config import DiffusionConfig
from policy_accel.diffusion.learned_variance import LearnedVariance
from policy_accel.diffusion.objective import Objective
from policy_accel.diffusion.processes import DiscreteProcess
from policy_accel.errors import UserError, naming

NOISE = "acceleration.noise"
PATH = "acceleration.path"
MOMENTUM = "acceleration.momentum"


def build_objective(diffusion: DiffusionConfig, acceleration: AccelerationConfig) -> Objective:
    """The objective that the settings describe; with every acceleration off it is the baseline.

    Raises:
        UserError: a value out of range, or a combination that makes no sense.
    """
    _check_noise(diffusion, acceleration)
    momentum, path, timesteps = acceleration.momentum, acceleration.path, acceleration.timesteps
    with naming(MOMENTUM, kind="name"):
        process = momentum.schedule(diffusion.process())
    with naming(PATH, timesteps="diffusion.timesteps"):
        process, repetition = path.process(process), path.repetition()
    if diffusion.family == "mip" and repetition.times_of_a_sample > 1 and repetition.times_of_a_sample % 2:
        raise UserError(
            f"{PATH}.times_per_sample={repetition.times_of_a_sample} would train one of the two steps of "
            "diffusion.family=mip more often than the other; choose an even number."
        )
    with naming(MOMENTUM, kind="name", strength="multiplier"):
        process = momentum.scaled(process)
    with naming("acceleration.timesteps", target="diffusion.target"):
        weights = timesteps.weights(process, diffusion.target)
    with naming("acceleration.timesteps"):
        times = timesteps.distribution(process)
    with naming(NOISE):
        noise = acceleration.noise.build()
    variance = None
    if diffusion.learn_sigma:
        assert isinstance(process, DiscreteProcess)
        with naming("diffusion.learn_sigma=true"):
            variance = LearnedVariance.of(process, diffusion.target, acceleration.data_scale)
    with naming(
        MOMENTUM,
        target="diffusion.target",
        reduction="diffusion.loss_reduction",
        data_scale="acceleration.data_scale",
    ):
        return Objective(
            process,
            diffusion.target,
            times=times,
            noise=noise,
            repetition=repetition,
            weights=weights,
            cap_warmup=momentum.cap_warmup,
            data_scale=acceleration.data_scale,
            variance=variance,
            reduction=diffusion.loss_reduction,
        )


def _check_noise(diffusion: DiffusionConfig, acceleration: AccelerationConfig) -> None:
    """Raise UserError for a choice of noise that does not go with the path or with what the denoiser predicts."""
    noise, path = acceleration.noise, acceleration.path
    if diffusion.family == "mip" and noise.name != NoiseConfig.name:
        raise UserError(
            f"{NOISE}.name={noise.name} chooses which noise a sample is mixed with, and the first step of "
            f"diffusion.family=mip has none; leave it at {NoiseConfig.name}."
        )
    if isinstance(noise, NearestNoiseConfig) and isinstance(path, SharedPathConfig):
        raise UserError(
            f"{NOISE}.name=nearest keeps one noise of each sample, and {PATH}.name=shared has several that belong "
            "together; choose acceleration/path=independent."
        )
    if diffusion.family == "shortcut" and path.name not in (PathConfig.name, FreshSamplesConfig.name):
        raise UserError(
            f"{PATH}.name={path.name} takes several times of each sample, and diffusion.family=shortcut takes one, of "
            f"every fourth sample that of a longer step; leave it at {PathConfig.name}."
        )
    if noise.center != "denoiser":
        return
    if diffusion.family != "ddpm":
        raise UserError(f"{NOISE}.center=denoiser needs diffusion.family=ddpm.")
    if diffusion.target not in ("sample", "v"):
        raise UserError(
            f"{NOISE}.center=denoiser reads the sample that is predicted from pure noise, which "
            f"diffusion.target={diffusion.target} does not tell; set diffusion.target=sample or v."
        )
