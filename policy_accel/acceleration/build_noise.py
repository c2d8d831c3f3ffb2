"""From settings to a choice of noise."""

from __future__ import annotations

import math

from policy_accel.acceleration.conditional import ConditionWeight
from policy_accel.acceleration.config import NoiseConfig
from policy_accel.acceleration.noise_choices import AssignedNoise, NearestChoice, Start
from policy_accel.diffusion.laws import IndependentNoise, NoiseChoice
from policy_accel.errors import UserError, one_of, refuse_idle

NAME = "acceleration.noise"
CHOICES = ("independent", "assignment", "nearest")
WITHIN = ("batch", "groups", "condition")
CENTERS = ("none", "ridge", "denoiser")
USED = {
    "independent": {"choice"},
    "nearest": {"choice", "metric", "candidates", "start_step", "start_score"},
    "assignment": {"choice", "metric", "block_size", "standardize", "within", "center", "start_step", "start_score"},
}
USED_WITHIN: dict[str, set[str]] = {"batch": set(), "groups": {"groups", "group_run"}, "condition": {"condition_ratio"}}


def build_noise(config: NoiseConfig) -> NoiseChoice:
    """How noise is chosen.

    Raises:
        UserError: a value out of range, or settings that would do nothing.
    """
    choice = one_of(f"{NAME}.choice", config.choice, CHOICES)
    refuse_idle(config, NAME, USED[choice] | set().union(*USED_WITHIN.values()), f"{NAME}.choice={choice}")
    within = one_of(f"{NAME}.within", config.within, WITHIN)
    refuse_idle(config, NAME, USED[choice] | USED_WITHIN[within], f"{NAME}.within={within}")
    if config.start_step < 0:
        raise UserError(f"{NAME}.start_step={config.start_step} must not be negative.")
    if config.start_score is not None and not math.isfinite(config.start_score):
        raise UserError(f"{NAME}.start_score={config.start_score} must be a finite number, or null.")
    start = Start(config.start_step, config.start_score)
    if choice == "independent":
        return IndependentNoise()
    if choice == "nearest":
        return _nearest(config, start)
    return _assigned(config, start)


def _nearest(config: NoiseConfig, start: Start) -> NearestChoice:
    if config.candidates < 1:
        raise UserError(f"{NAME}.candidates={config.candidates} must be at least 1.")
    if config.metric not in ("l2", "dot"):
        raise UserError(f"{NAME}.metric={config.metric} does not go with choice=nearest; choose l2 or dot.")
    return NearestChoice(config.candidates, config.metric, start)


def _assigned(config: NoiseConfig, start: Start) -> AssignedNoise:
    one_of(f"{NAME}.metric", config.metric, ("l2", "dot", "l2sq"))
    center = one_of(f"{NAME}.center", config.center, CENTERS)
    for name in ("groups", "group_run", "block_size"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"{NAME}.{name}={value} must be at least 1.")
    if not 0 < config.condition_ratio < 1:
        raise UserError(f"{NAME}.condition_ratio={config.condition_ratio} must lie between 0 and 1.")
    conditional = config.within == "condition"
    if conditional and config.metric != "l2sq":
        raise UserError(
            f"{NAME}.within=condition adds to the squared distance; set {NAME}.metric=l2sq (now {config.metric})."
        )
    if conditional and config.block_size is not None:
        raise UserError(f"{NAME}.block_size does not go with within=condition; set it to null.")
    return AssignedNoise(
        metric=config.metric,
        block_size=config.block_size,
        standardize=config.standardize,
        grouped=config.within == "groups",
        condition_weight=ConditionWeight(config.condition_ratio) if conditional else None,
        center=center,
        start=start,
    )
