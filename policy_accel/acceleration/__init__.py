"""Which noise, which time, how the optimiser moves: one file a method, each usable in anyone's own loop."""

from policy_accel.acceleration.conditional import ConditionalMean, ConditionWeight, kmeans_groups, ridge_mean
from policy_accel.acceleration.loss_weights import loss_weights
from policy_accel.acceleration.momentum_decay import (
    DemonDecay,
    ExponentialDecay,
    LinearDecay,
    MatchedCosineDecay,
    MomentumDecay,
    decay_at,
    momentum_decay,
)
from policy_accel.acceleration.nearest_noise import nearest_noise
from policy_accel.acceleration.noise_assignment import assign_noise, start_assignment
from policy_accel.acceleration.noise_statistics import assignment_statistics
from policy_accel.acceleration.timestep_curriculum import (
    CurriculumTimes,
    noise_matched_positions,
    timestep_probabilities,
)
from policy_accel.acceleration.timestep_distributions import LossSecondMoment, TableTimes

__all__ = [
    "ConditionWeight",
    "ConditionalMean",
    "CurriculumTimes",
    "DemonDecay",
    "ExponentialDecay",
    "LinearDecay",
    "LossSecondMoment",
    "MatchedCosineDecay",
    "MomentumDecay",
    "TableTimes",
    "assign_noise",
    "assignment_statistics",
    "decay_at",
    "kmeans_groups",
    "loss_weights",
    "momentum_decay",
    "nearest_noise",
    "noise_matched_positions",
    "ridge_mean",
    "start_assignment",
    "timestep_probabilities",
]
