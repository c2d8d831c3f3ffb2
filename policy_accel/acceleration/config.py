"""The accelerations as settings: one dataclass for each choice. Everything off (the defaults) is the baseline."""

from __future__ import annotations

from dataclasses import dataclass, field

from policy_accel.acceleration.assigned_noise import (
    AssignmentConfig,
    ConditionalAssignmentConfig,
    GroupedAssignmentConfig,
)
from policy_accel.acceleration.momentum import MOMENTUM_CONFIGS, MomentumConfig
from policy_accel.acceleration.momentum_decay import MOMENTUM_DECAY_CONFIGS
from policy_accel.acceleration.nearest_noise import NearestNoiseConfig
from policy_accel.acceleration.noise_choices import NoiseConfig
from policy_accel.acceleration.path import PATH_CONFIGS, PathConfig
from policy_accel.acceleration.timesteps import TIMESTEPS_CONFIGS, TimestepsConfig

NOISE_CONFIGS: tuple[type[NoiseConfig], ...] = (
    NoiseConfig,
    NearestNoiseConfig,
    AssignmentConfig,
    GroupedAssignmentConfig,
    ConditionalAssignmentConfig,
)
GROUPS: dict[str, tuple[type, ...]] = {
    "acceleration/noise": NOISE_CONFIGS,
    "acceleration/path": PATH_CONFIGS,
    "acceleration/momentum": MOMENTUM_CONFIGS,
    "acceleration/timesteps": TIMESTEPS_CONFIGS,
    "training/optimizer/momentum_decay": MOMENTUM_DECAY_CONFIGS,
}
"""The groups of settings and the choices of each; the first is the base of the others, and leaves it off."""


@dataclass
class AccelerationConfig:
    """All accelerations of the objective; momentum decay is one of the optimiser."""

    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """Which noise each sample is diffused with (Immiscible Diffusion and its kin)."""
    path: PathConfig = field(default_factory=PathConfig)
    """Several times of each clean sample in one update (KL diffusion)."""
    momentum: MomentumConfig = field(default_factory=MomentumConfig)
    """Momentum in the forward process (Fast Diffusion Model)."""
    timesteps: TimestepsConfig = field(default_factory=TimestepsConfig)
    """Which timesteps are trained on, and how their losses are weighted."""
    data_scale: float = 1.0
    """Factor on the normalised data while they are diffused, undone after sampling."""
