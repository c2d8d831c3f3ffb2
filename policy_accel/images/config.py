"""The whole configuration of an image run, typed."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from policy_accel.errors import UserError, one_of
from policy_accel.images.generation.sampling import ImageSamplingConfig
from policy_accel.images.metrics import CHEAP, SCORED, MetricsConfig
from policy_accel.images.scoring.protocol import PROTOCOLS
from policy_accel.images.sets import ImageTaskConfig
from policy_accel.models import ModelConfig
from policy_accel.training.config import RunConfig


@dataclass
class ImageEvaluationConfig:
    """How many images score a model, and what is drawn of them."""

    samples: int = 50_000
    """Images generated at the end of training; 0 for no score."""
    curve_samples: int = 1_000
    """Images generated at each evaluation during training, measured by `curve_measures`."""
    curve_measures: list[str] = field(default_factory=lambda: list(CHEAP))
    """Measures of an evaluation during training, named as `policy-accel evaluate` prints them, such as fid; at the end
    all are taken."""
    score_measure: str = SCORED
    """The measure whose ratio to its floor is the run's score, by which checkpoints are kept and the best is chosen."""
    protocol: str = "plain"
    """Of the measures at the end: plain, one draw of `samples` images, or edm, three draws with all classes equally
    often, of whose Fréchet distances the lowest counts (Karras et al. 2022)."""
    seed: int = 0
    """Image i follows from (seed, i) and the weights."""
    batch_size: int = 256
    """Images generated at a time. Does not change them beyond rounding."""
    grid: int = 64
    """Images on the sample grids; 0 draws none."""
    video: bool = True
    """Film at the end how the grid forms from noise."""
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    overlap: bool = False
    """Score in another process while the training goes on. Does not change results."""

    def check(self) -> None:
        """Raise UserError unless the numbers make sense."""
        for name, least in (("samples", 0), ("curve_samples", 0), ("batch_size", 1), ("grid", 0)):
            if getattr(self, name) < least:
                raise UserError(f"evaluation.{name}={getattr(self, name)} must be at least {least}.")
        for name in ("samples", "curve_samples"):
            if getattr(self, name) == 1:
                raise UserError(f"evaluation.{name}=1 has no spread to measure; give 2 or more, or 0 for none.")
        one_of("evaluation.protocol", self.protocol, PROTOCOLS)
        self.metrics.check()


@dataclass
class ImageConfig(RunConfig):
    """Everything that `policy-accel train` takes for an image task."""

    track: str = "images"
    task: ImageTaskConfig = field(default_factory=ImageTaskConfig)
    model: ModelConfig = MISSING
    sampling: ImageSamplingConfig = field(default_factory=ImageSamplingConfig)
    evaluation: ImageEvaluationConfig = field(default_factory=ImageEvaluationConfig)
