"""The whole configuration of an image run, typed."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from policy_accel.images.evaluate import ImageEvaluationConfig
from policy_accel.images.generate import ImageSamplingConfig
from policy_accel.images.sets import ImageTaskConfig
from policy_accel.models import ModelConfig
from policy_accel.training.config import RunConfig


@dataclass
class ImageConfig(RunConfig):
    """Everything that `policy-accel train` takes for an image task."""

    track: str = "images"
    task: ImageTaskConfig = field(default_factory=ImageTaskConfig)
    model: ModelConfig = MISSING
    sampling: ImageSamplingConfig = field(default_factory=ImageSamplingConfig)
    evaluation: ImageEvaluationConfig = field(default_factory=ImageEvaluationConfig)
