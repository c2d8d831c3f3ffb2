"""From settings to an objective; combinations that make no sense are refused with the reason."""

from __future__ import annotations

from dataclasses import replace

import torch

from policy_accel.acceleration.conditional import ConditionWeight
from policy_accel.acceleration.config import AccelerationConfig, NoiseConfig, PathConfig, TimestepsConfig
from policy_accel.acceleration.loss_weights import loss_weights
from policy_accel.acceleration.noise_choices import AssignedNoise, NearestNoise, Start
from policy_accel.acceleration.time_laws import (
    CurriculumTimes,
    LossSecondMoment,
    TableTimes,
    edm_probabilities,
    logit_normal_probabilities,
    speed_mirror,
    speed_probabilities,
)
from policy_accel.acceleration.timestep_curriculum import noise_matched_positions
from policy_accel.diffusion.config import DiffusionConfig
from policy_accel.diffusion.continuous import FlowProcess, SigmaProcess
from policy_accel.diffusion.karhunen_loeve import karhunen_loeve_process
from policy_accel.diffusion.laws import COUPLINGS, IndependentNoise, NoiseChoice, Path, Times
from policy_accel.diffusion.momentum import momentum_process
from policy_accel.diffusion.objective import Objective, Process
from policy_accel.diffusion.processes import DiscreteProcess
from policy_accel.errors import UserError, did_you_mean

CHOICES = ("independent", "assignment", "nearest")
WITHIN = ("batch", "groups", "condition")
CENTERS = ("none", "ridge", "denoiser")
LAWS = ("uniform", "curriculum", "logit_normal", "edm", "speed", "loss_second_moment")
POSITIONS = ("noise", "index")
INPUT_SCALES = ("base", "natural", "sigma", "one", "momentum")


def build_objective(diffusion: DiffusionConfig, acceleration: AccelerationConfig) -> Objective:
    """The objective that the settings describe; with every acceleration off it is the baseline.

    Raises:
        UserError: a value out of range, or a combination that makes no sense.
    """
    path = build_path(acceleration.path)
    process = build_process(diffusion, acceleration, path)
    if not acceleration.data_scale > 0:
        raise UserError(f"acceleration.data_scale={acceleration.data_scale} must be positive.")
    noise = acceleration.noise
    if noise.choice == "nearest" and path.coupling == "shared" and acceleration.path.times_per_sample > 1:
        raise UserError(
            "acceleration.noise.choice=nearest keeps one noise of each sample, and a shared path "
            "(acceleration.path.times_per_sample > 1) has several that belong together; set "
            "acceleration.path.coupling=independent."
        )
    if noise.center == "denoiser" and diffusion.target not in ("sample", "v"):
        raise UserError(
            f"acceleration.noise.center=denoiser reads the sample that is predicted from pure noise, which "
            f"diffusion.target={diffusion.target} does not tell; set diffusion.target=sample or v."
        )
    if noise.center == "denoiser" and diffusion.family != "ddpm":
        raise UserError("acceleration.noise.center=denoiser needs diffusion.family=ddpm.")
    if acceleration.momentum.cap_warmup and diffusion.family == "ddpm" and diffusion.target == "sample":
        raise UserError(
            "acceleration.momentum.cap_warmup caps the weight of the sample's error, which is 1 throughout with "
            "diffusion.target=sample: set it to 0, or choose epsilon or v."
        )
    weights = None
    name = acceleration.timesteps.weight
    if isinstance(process, DiscreteProcess):
        weights = loss_weights(name, process.log_snr, diffusion.target)
    elif name != "none":
        raise UserError(
            f"acceleration.timesteps.weight={name} is a table over discrete times; diffusion.family={diffusion.family} "
            "has its own weight: set it to none."
        )
    return Objective(
        process,
        diffusion.target,
        times=build_times(acceleration.timesteps, process, diffusion.family),  # type: ignore[arg-type]
        noise=build_noise(noise),
        path=path,
        weights=weights,
        cap_warmup=_not_negative("acceleration.momentum.cap_warmup", acceleration.momentum.cap_warmup),
        data_scale=acceleration.data_scale,
    )


def _not_negative(name: str, value: int) -> int:
    if value < 0:
        raise UserError(f"{name}={value} must not be negative.")
    return value


def _known(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise UserError(f"{name} '{value}' is unknown; {did_you_mean(value, known)}")
    return value


def build_path(config: PathConfig) -> Path:
    """Times per sample.

    Raises:
        UserError: a count out of range, an unknown coupling, or settings that would do nothing.
    """
    _known("acceleration.path.coupling", config.coupling, COUPLINGS)
    times, evaluations = config.times_per_sample, config.evaluations
    if times < 1:
        raise UserError(f"acceleration.path.times_per_sample={times} must be at least 1.")
    if evaluations is not None and not 1 <= evaluations <= times:
        raise UserError(
            f"acceleration.path.evaluations={evaluations} must lie between 1 and acceleration.path.times_per_sample="
            f"{times}."
        )
    if evaluations is not None and config.coupling == "fresh":
        raise UserError(
            "acceleration.path.evaluations leaves out times of a sample, and coupling=fresh has one for each; "
            "set it to null."
        )
    if config.coupling != "shared" and (
        config.modes is not None or config.marginal != "matched" or config.clock != "time"
    ):
        raise UserError(
            "acceleration.path.modes, marginal and clock describe a shared path; with "
            f"coupling={config.coupling} leave them at null, matched and time."
        )
    return Path(times, config.coupling, evaluations)


def build_process(diffusion: DiffusionConfig, acceleration: AccelerationConfig, path: Path) -> Process:
    """The forward process with momentum and Karhunen-Loeve path."""
    momentum, shared = acceleration.momentum, acceleration.path
    scale = _known("acceleration.momentum.input_scale", momentum.input_scale, INPUT_SCALES)
    if not momentum.multiplier > 0:
        raise UserError(f"acceleration.momentum.multiplier={momentum.multiplier} must be positive.")
    if momentum.schedule_strength < 0:
        raise UserError(f"acceleration.momentum.schedule_strength={momentum.schedule_strength} must not be negative.")
    discrete = diffusion.family == "ddpm"
    if diffusion.family == "flow" and (scale != "base" or momentum.cap_warmup or momentum.schedule_strength):
        raise UserError(
            "acceleration.momentum (FDM) is defined by the noise-to-signal ratio of a diffusion and not for "
            "diffusion.family=flow; choose ddpm, edm, vp or ve."
        )
    fitting = ("base", "natural", "sigma", "one") if discrete else ("base", "momentum", "one")
    if scale not in fitting:
        raise UserError(
            f"acceleration.momentum.input_scale={scale} does not go with diffusion.family={diffusion.family}; choose "
            f"{', '.join(fitting[:-1])} or {fitting[-1]}."
        )
    if not discrete:
        if momentum.schedule_strength:
            raise UserError("acceleration.momentum.schedule_strength needs diffusion.family=ddpm.")
        if path.coupling == "shared" and (path.times_per_sample > 1 or shared.modes is not None):
            raise UserError(
                f"a shared Karhunen-Loeve path (acceleration.path) needs diffusion.family=ddpm, not "
                f"{diffusion.family}; set acceleration.path.coupling=independent."
            )
        return diffusion.process(input_scale=scale, multiplier=momentum.multiplier)
    process = diffusion.process()
    assert isinstance(process, DiscreteProcess)
    if momentum.schedule_strength:
        process = momentum_process(process, "schedule", strength=momentum.schedule_strength)
    if path.coupling == "shared" and (path.times_per_sample > 1 or shared.modes is not None):
        modes = path.times_per_sample if shared.modes is None else shared.modes
        process = karhunen_loeve_process(process, modes, shared.marginal, shared.clock)
    elif shared.marginal != "matched" or shared.clock != "time":
        raise UserError(
            f"acceleration.path.marginal={shared.marginal} and clock={shared.clock} describe a truncated path; set "
            "acceleration.path.modes."
        )
    if scale != "base":
        if shared.marginal == "raw":
            raise UserError(
                f"acceleration.momentum.input_scale={scale} needs a variance-preserving process, which "
                "acceleration.path.marginal=raw is not; choose matched or vp_equivalent."
            )
        scales = momentum_process(process, scale, strength=momentum.multiplier).input_scales
        process = replace(process, input_scales=scales)
    return process


def build_times(config: TimestepsConfig, process: Process, family: str) -> Times | None:
    """The law of the times; None for the process' own."""
    law = _known("acceleration.timesteps.law", config.law, LAWS)
    _known("acceleration.timesteps.positions", config.positions, POSITIONS)
    if isinstance(process, SigmaProcess | FlowProcess):
        if law != "uniform" or config.stratified:
            what = f"law={law}" if law != "uniform" else "stratified=true"
            raise UserError(
                f"acceleration.timesteps.{what} is defined over discrete times, and diffusion.family={family} draws "
                "from its own continuous law; choose diffusion.family=ddpm, or leave acceleration.timesteps alone."
            )
        return None
    steps, stratified = process.timesteps, config.stratified
    if config.unbiased and law != "curriculum":
        raise UserError(f"acceleration.timesteps.unbiased goes with law=curriculum, not with law={law}.")
    if law == "uniform":
        return TableTimes(torch.ones(steps), stratified=True) if stratified else None
    if law == "curriculum":
        return CurriculumTimes(
            steps,
            center=config.center,
            width=config.width,
            start=config.start,
            end=config.end,
            strength=config.strength,
            positions=noise_matched_positions(process.log_snr) if config.positions == "noise" else None,
            unbiased=config.unbiased,
            stratified=stratified,
        )
    if law == "logit_normal":
        return TableTimes(logit_normal_probabilities(steps), stratified=stratified)
    if law == "edm":
        return TableTimes(edm_probabilities(process.log_snr), stratified=stratified)
    if law == "speed":
        mirror = speed_mirror(process.alphas.square())
        return TableTimes(speed_probabilities(steps), stratified=stratified, mirror=mirror)
    return LossSecondMoment(steps, stratified=stratified)


def build_noise(config: NoiseConfig) -> NoiseChoice:
    """How noise is chosen.

    Raises:
        UserError: a value out of range, or settings that would do nothing.
    """
    choice = _known("acceleration.noise.choice", config.choice, CHOICES)
    within = _known("acceleration.noise.within", config.within, WITHIN)
    center = _known("acceleration.noise.center", config.center, CENTERS)
    start = Start(_not_negative("acceleration.noise.start_step", config.start_step), config.start_score)
    for name in ("groups", "group_run"):
        if getattr(config, name) < 1:
            raise UserError(f"acceleration.noise.{name}={getattr(config, name)} must be at least 1.")
    if not 0 < config.condition_ratio < 1:
        raise UserError(f"acceleration.noise.condition_ratio={config.condition_ratio} must lie between 0 and 1.")
    if choice != "assignment" and (within != "batch" or center != "none" or config.standardize):
        raise UserError(
            "acceleration.noise.within, center and standardize describe an assignment; set "
            f"acceleration.noise.choice=assignment (now {choice}) or leave them at batch, none and false."
        )
    if choice == "independent":
        return IndependentNoise()
    if choice == "nearest":
        if config.candidates < 1:
            raise UserError(f"acceleration.noise.candidates={config.candidates} must be at least 1.")
        if config.metric not in ("l2", "dot"):
            raise UserError(
                f"acceleration.noise.metric={config.metric} does not go with choice=nearest; choose l2 or dot."
            )
        return NearestNoise(config.candidates, config.metric, start)
    _known("acceleration.noise.metric", config.metric, ("l2", "dot", "l2sq"))
    if config.block_size is not None and config.block_size < 1:
        raise UserError(f"acceleration.noise.block_size={config.block_size} must be at least 1, or null.")
    if within == "condition" and config.metric != "l2sq":
        raise UserError(
            f"acceleration.noise.within=condition adds to the squared distance; set acceleration.noise.metric=l2sq "
            f"(now {config.metric})."
        )
    if within == "condition" and config.block_size is not None:
        raise UserError("acceleration.noise.block_size does not go with within=condition; set it to null.")
    return AssignedNoise(
        metric=config.metric,
        block_size=config.block_size,
        standardize=config.standardize,
        grouped=within == "groups",
        condition_weight=ConditionWeight(config.condition_ratio) if within == "condition" else None,
        denoiser_centered=center == "denoiser",
        start=start,
    )
