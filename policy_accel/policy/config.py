"""The whole configuration of a robot run, typed."""

from __future__ import annotations

from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from policy_accel.configuration import ROBOT
from policy_accel.diffusion.sampling import SamplingConfig
from policy_accel.groups import register_group
from policy_accel.models import ModelConfig, denoiser_configs
from policy_accel.models.encoders import EncoderConfig
from policy_accel.policy.demonstrations import TaskConfig
from policy_accel.policy.evaluate import EvaluationConfig
from policy_accel.policy.policy import PolicyConfig
from policy_accel.training.config import RunConfig


@dataclass
class RobotConfig(RunConfig):
    """Everything that `policy-accel train` takes."""

    track: str = ROBOT.name
    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = MISSING
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


def register() -> None:
    """Tell Hydra the types; the YAML files of `policy_accel.configs` build on them."""
    store = ConfigStore.instance()
    store.store(name="robot", node=RobotConfig, provider=ROBOT.name)
    register_group("model", ModelConfig, denoiser_configs(ROBOT.name).values(), track=ROBOT.name)
