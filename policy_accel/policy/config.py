"""The whole configuration of a robot run, typed."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from policy_accel.diffusion.config import SamplingConfig
from policy_accel.errors import UserError, one_of
from policy_accel.models import ModelConfig
from policy_accel.models.encoders import EncoderConfig
from policy_accel.policy.demonstrations import TaskConfig
from policy_accel.policy.policy import PolicyConfig
from policy_accel.training.config import RunConfig

NORMALIZERS = ("keep", "refit")


@dataclass
class EvaluationConfig:
    """Which episodes score a policy; the defaults are Diffusion Policy's test protocol."""

    episodes: int = 50
    """Episodes that score a policy; 0 for no score."""
    start_seed: int = 100_000
    """Episodes start from the seeds start_seed, start_seed + 1, ..."""
    noise_seed: int = 0
    """Seed of the sampler's noise, which is drawn for each (episode seed, chunk)."""
    slots: int = 50
    """Episodes that run side by side: the batch size of the policy."""
    workers: int = -1
    """Processes for the environments; 0 runs them in this one, -1 takes one for each core. Does not change results."""
    videos: int = 4
    """Number of the first episodes that are filmed."""
    camera: str | None = None
    """Camera that films, where the environment has several; null for its own choice."""
    confidence: float = 0.95
    """Of the intervals around scores, between 0 and 1."""
    overlap: bool = False
    """Roll out in another process while the training goes on. Does not change results."""

    def check(self) -> None:
        """Raise UserError unless the numbers make sense."""
        for name, least in (("episodes", 0), ("start_seed", 0), ("slots", 1), ("workers", -1), ("videos", 0)):
            if getattr(self, name) < least:
                raise UserError(f"evaluation.{name}={getattr(self, name)} must be at least {least}.")
        if self.camera is not None and self.videos == 0:
            raise UserError(f"evaluation.camera={self.camera} films nothing with evaluation.videos=0; raise videos.")
        if not 0 < self.confidence < 1:
            raise UserError(f"evaluation.confidence={self.confidence} must lie between 0 and 1.")


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
    init_normalizer: str = NORMALIZERS[0]
    """With init_from: keep the normalisers that its weights are used to, or refit them to the data of this run."""

    def check_init(self) -> None:
        """Raise UserError for a normaliser that is unknown, or has no effect."""
        one_of("init_normalizer", self.init_normalizer, NORMALIZERS)
        if self.init_from is None and self.init_normalizer != NORMALIZERS[0]:
            raise UserError(
                f"init_normalizer={self.init_normalizer} has no effect without init_from; leave it at {NORMALIZERS[0]}."
            )

    def is_scored(self) -> bool:
        """Whether there is an environment to score a policy in, and episodes to do it by."""
        return self.evaluation.episodes > 0 and self.task.environment is not None
