"""The settings that the runs of every track have in common."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from policy_accel.acceleration.config import AccelerationConfig
from policy_accel.diffusion.config import DiffusionConfig
from policy_accel.training.loop import TrainingConfig


@dataclass
class RunConfig:
    """What a track's configuration builds on; it adds `task`, `model`, `sampling` and `evaluation`."""

    track: str = MISSING
    """What is trained: robot (policies) or images. Each track has its own tasks, models and recipes."""
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    acceleration: AccelerationConfig = field(default_factory=AccelerationConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    label: str = "plain"
    """Names the run directory; each recipe sets its own."""
    method: str = "baseline"
    """Names the run directory too; method=NAME sets it with the settings of that method."""
    seed: int = 42
    run_dir: str = "runs/${task.name}-${label}-${method}-${model.name}-seed${seed}"
