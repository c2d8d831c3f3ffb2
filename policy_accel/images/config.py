"""The whole configuration of an image run, typed."""

from __future__ import annotations

from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from policy_accel.configuration import IMAGES
from policy_accel.groups import register_group
from policy_accel.images.evaluate import ImageEvaluationConfig
from policy_accel.images.generate import ImageSamplingConfig
from policy_accel.images.sets import ImageTaskConfig
from policy_accel.models import ModelConfig, denoiser_configs
from policy_accel.training.config import RunConfig


@dataclass
class ImageConfig(RunConfig):
    """Everything that `policy-accel train` takes for an image task."""

    track: str = IMAGES.name
    task: ImageTaskConfig = field(default_factory=ImageTaskConfig)
    model: ModelConfig = MISSING
    sampling: ImageSamplingConfig = field(default_factory=ImageSamplingConfig)
    evaluation: ImageEvaluationConfig = field(default_factory=ImageEvaluationConfig)


def register() -> None:
    """Tell Hydra the types; the YAML files of `policy_accel.configs` build on them."""
    store = ConfigStore.instance()
    store.store(name="images", node=ImageConfig, provider=IMAGES.name)
    register_group("model", ModelConfig, denoiser_configs(IMAGES.name).values(), track=IMAGES.name)
