"""Scoring policies: simulated rollouts and the intervals around their scores. Importing it needs no torch."""

from policy_accel.evaluation.environments import EnvironmentSpec
from policy_accel.evaluation.episode import EpisodeResult
from policy_accel.evaluation.rollouts import RolloutPool
from policy_accel.evaluation.statistics import bootstrap_interval, wilson_interval

__all__ = ["EnvironmentSpec", "EpisodeResult", "RolloutPool", "bootstrap_interval", "wilson_interval"]
