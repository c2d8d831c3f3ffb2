"""From settings to an objective; combinations that make no sense are refused with the reason."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from policy_accel.acceleration.build_noise import build_noise
from policy_accel.acceleration.config import AccelerationConfig, MomentumConfig, PathConfig, TimestepsConfig
from policy_accel.acceleration.loss_weights import loss_weights
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
from policy_accel.diffusion.continuous import FlowProcess
from policy_accel.diffusion.karhunen_loeve import karhunen_loeve_process
from policy_accel.diffusion.laws import Path, Times
from policy_accel.diffusion.momentum import momentum_process
from policy_accel.diffusion.objective import Objective, check_target
from policy_accel.diffusion.processes import DiscreteProcess, Process
from policy_accel.errors import UserError, naming, one_of, refuse_idle

LAWS = ("uniform", "curriculum", "logit_normal", "edm", "speed", "loss_second_moment")
POSITIONS = ("noise", "index")
STRONGEST_SCHEDULE = 8.0  # beyond it alpha leaves float64's range on the steepest schedules
INPUT_SCALES = ("base", "natural", "sigma", "one", "momentum")


MOMENTUM = "acceleration.momentum"
TIMESTEPS = "acceleration.timesteps"


def build_objective(diffusion: DiffusionConfig, acceleration: AccelerationConfig) -> Objective:
    """The objective that the settings describe; with every acceleration off it is the baseline.

    Raises:
        UserError: a value out of range, settings that would do nothing, or a combination that makes no sense.
    """
    path = build_path(acceleration.path)
    process = build_process(diffusion, acceleration, path)
    noise = acceleration.noise
    if noise.choice == "nearest" and path.coupling == "shared" and path.times_per_sample > 1:
        raise UserError(
            "acceleration.noise.choice=nearest keeps one noise of each sample, and a shared path "
            "(acceleration.path.times_per_sample > 1) has several that belong together; set "
            "acceleration.path.coupling=independent."
        )
    if noise.center == "denoiser" and diffusion.family != "ddpm":
        raise UserError("acceleration.noise.center=denoiser needs diffusion.family=ddpm.")
    if noise.center == "denoiser" and diffusion.target not in ("sample", "v"):
        raise UserError(
            f"acceleration.noise.center=denoiser reads the sample that is predicted from pure noise, which "
            f"diffusion.target={diffusion.target} does not tell; set diffusion.target=sample or v."
        )
    weights = None
    weight = acceleration.timesteps.weight
    if isinstance(process, DiscreteProcess):
        with naming(TIMESTEPS, target="diffusion.target"):
            weights = loss_weights(weight, process.log_snr, diffusion.target)
    elif weight != "none":
        raise UserError(
            f"{TIMESTEPS}.weight={weight} is a table over discrete times; diffusion.family={diffusion.family} has its "
            "own weight: set it to none."
        )
    with naming(TIMESTEPS):
        times = build_times(acceleration.timesteps, process, diffusion.family)
    with naming("diffusion"):
        check_target(diffusion.target, process)
    with naming("acceleration", cap_warmup="acceleration.momentum.cap_warmup", target="diffusion.target"):
        return Objective(
            process,
            diffusion.target,
            times=times,  # type: ignore[arg-type]
            noise=build_noise(noise),
            path=path,
            weights=weights,
            cap_warmup=acceleration.momentum.cap_warmup,
            data_scale=acceleration.data_scale,
        )


def build_path(config: PathConfig) -> Path:
    """Times per sample.

    Raises:
        UserError: a count out of range, an unknown coupling, or settings that would do nothing.
    """
    name = "acceleration.path"
    with naming(name):
        path = Path(config.times_per_sample, config.coupling, config.evaluations)
    if path.times_per_sample == 1:
        truncated = config.modes is not None and config.marginal != "matched"
        used = {"times_per_sample", *(("modes", "marginal", "clock") if truncated else ())}
        remedy = "one time for each sample and matched marginals" if not truncated else "one time for each sample"
        if config.marginal != "matched" and config.modes is None:
            raise UserError(f"{name}.marginal={config.marginal} describes a truncated path; set {name}.modes.")
        refuse_idle(config, name, used, f"{remedy} ({name}.times_per_sample=1)")
    elif config.coupling != "shared":
        refuse_idle(config, name, {"times_per_sample", "coupling", "evaluations"}, f"{name}.coupling={config.coupling}")
    return path


def build_process(diffusion: DiffusionConfig, acceleration: AccelerationConfig, path: Path) -> Process:
    """The forward process with momentum and Karhunen-Loeve path."""
    momentum, shared = acceleration.momentum, acceleration.path
    check_momentum(momentum, diffusion.family)
    several = path.coupling == "shared" and (path.times_per_sample > 1 or shared.modes is not None)
    if diffusion.family != "ddpm":
        if several:
            raise UserError(
                "a shared Karhunen-Loeve path (acceleration.path) needs diffusion.family=ddpm, not "
                f"{diffusion.family}; set acceleration.path.coupling=independent."
            )
        logit_normal = acceleration.timesteps.law == "logit_normal"
        with naming(MOMENTUM, family="diffusion.family"):
            return diffusion.process(
                input_scale=momentum.input_scale,
                multiplier=momentum.multiplier,
                flow_times="logit_normal" if logit_normal else "uniform",
            )
    with naming("diffusion"):
        process = diffusion.process()
    assert isinstance(process, DiscreteProcess)
    if momentum.schedule_strength:
        with naming(MOMENTUM, strength="schedule_strength"):
            process = momentum_process(process, "schedule", strength=momentum.schedule_strength)
    if several:
        modes = path.times_per_sample if shared.modes is None else shared.modes
        with naming("acceleration.path", timesteps="diffusion.timesteps"):
            process = karhunen_loeve_process(process, modes, shared.marginal, shared.clock)
    if momentum.input_scale != "base":
        if shared.marginal == "raw":
            raise UserError(
                f"{MOMENTUM}.input_scale={momentum.input_scale} needs a variance-preserving process, which "
                "acceleration.path.marginal=raw is not; choose matched or vp_equivalent."
            )
        with naming(MOMENTUM, kind="input_scale", strength="multiplier"):
            scaled = momentum_process(process, momentum.input_scale, strength=momentum.multiplier)
        process = replace(process, input_scales=scaled.input_scales)
    return process


def check_momentum(config: MomentumConfig, family: str) -> None:
    """Raise UserError unless FDM's settings go together and with the family of the process."""
    scale = one_of(f"{MOMENTUM}.input_scale", config.input_scale, INPUT_SCALES)
    if family == "flow":
        refuse_idle(config, MOMENTUM, set(), "diffusion.family=flow, for which FDM is not defined")
    fitting = ("base", "natural", "sigma", "one") if family == "ddpm" else ("base", "momentum", "one")
    if scale not in fitting:
        raise UserError(
            f"{MOMENTUM}.input_scale={scale} does not go with diffusion.family={family}; choose "
            f"{', '.join(fitting[:-1])} or {fitting[-1]}."
        )
    used = {"input_scale", "cap_warmup"}
    if family == "ddpm":
        used.add("schedule_strength")
    if scale in ("natural", "sigma") or (scale == "momentum" and family != "ve"):
        used.add("multiplier")
    refuse_idle(config, MOMENTUM, used, f"{MOMENTUM}.input_scale={scale} and diffusion.family={family}")
    if not 0 < config.multiplier < math.inf:
        raise UserError(f"{MOMENTUM}.multiplier={config.multiplier} must be positive and finite.")
    if not 0 <= config.schedule_strength <= STRONGEST_SCHEDULE:
        raise UserError(
            f"{MOMENTUM}.schedule_strength={config.schedule_strength} must lie between 0 (off) and "
            f"{STRONGEST_SCHEDULE}."
        )


def build_times(config: TimestepsConfig, process: Process, family: str) -> Times | None:
    """The law of the times; None for the process' own."""
    law = one_of(f"{TIMESTEPS}.law", config.law, LAWS)
    one_of(f"{TIMESTEPS}.positions", config.positions, POSITIONS)
    if not isinstance(process, DiscreteProcess):
        own = law == "uniform" or (law == "logit_normal" and isinstance(process, FlowProcess))
        if not own or config.stratified:
            what = "stratified=true" if own else f"law={law}"
            raise UserError(
                f"{TIMESTEPS}.{what} is defined over discrete times, and diffusion.family={family} draws from its own "
                "continuous law; choose diffusion.family=ddpm, or leave acceleration.timesteps alone."
            )
        refuse_idle(config, TIMESTEPS, {"law", "weight"}, f"diffusion.family={family}")
        return None
    steps, stratified = process.timesteps, config.stratified
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
    refuse_idle(config, TIMESTEPS, {"law", "weight", "stratified"}, f"{TIMESTEPS}.law={law}")
    if law == "uniform":
        return TableTimes(torch.ones(steps), stratified=True) if stratified else None
    if law == "logit_normal":
        return TableTimes(logit_normal_probabilities(steps), stratified=stratified)
    if law == "edm":
        return TableTimes(edm_probabilities(process.log_snr), stratified=stratified)
    if law == "speed":
        mirror = speed_mirror(process.alphas.square())
        return TableTimes(speed_probabilities(steps), stratified=stratified, mirror=mirror)
    return LossSecondMoment(steps, stratified=stratified)
