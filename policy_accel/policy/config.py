"""The whole configuration of a robot run, typed."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from policy_accel.diffusion.config import SamplingConfig
from policy_accel.models import ModelConfig
from policy_accel.models.encoders import EncoderConfig
from policy_accel.policy.demonstrations import TaskConfig
from policy_accel.policy.evaluate import EvaluationConfig
from policy_accel.policy.policy import PolicyConfig
from policy_accel.training.config import RunConfig


@dataclass
class RobotConfig(RunConfig):
    """Everything that `policy-accel train` takes."""

    track: str = "robot"
    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = MISSING
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
