"""How images are drawn from a trained model: the sampler, its steps and guidance, as settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor

from policy_accel.diffusion import Sampler
from policy_accel.diffusion.by_level import ByLevel, Denoiser
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.diffusion.processes import Level, Process
from policy_accel.errors import UserError
from policy_accel.images.generation.guidance import Model, evaluations_per_step, guided


@dataclass
class ImageSamplingConfig(SamplingConfig):
    """How images are drawn from a trained model."""

    guidance: float = 1.0
    """Weight w of classifier-free guidance, null + w (conditional - null): 1 is the conditional model, 0 the
    unconditional one, others evaluate the network twice a step. Needs a model trained with task.label_dropout."""
    guidance_interval: list[float] | None = None
    """Noise levels sigma / alpha at which it guides, above the first and up to the second (Kynkaanniemi et al. 2024):
    [0.3, 3]. At the others the conditional model is evaluated alone. null guides at all."""

    def distilled(self, times: list[float]) -> Self:
        """See `SamplingConfig.distilled`; the student has the guidance of its teacher in its weights."""
        return replace(super().distilled(times), guidance=1.0, guidance_interval=None)

    def guided(self, weight: float) -> Self:
        """See `SamplingConfig.guided`."""
        return replace(self, guidance=weight, guidance_interval=None if weight == 1.0 else self.guidance_interval)

    def asked(self, guidance: float | None, interval: list[float] | None) -> Self:
        """The same with guidance and an interval of it as somebody asks; None leaves it as it is."""
        changed = self if guidance is None else self.guided(guidance)
        return changed if interval is None else replace(changed, guidance_interval=interval)

    def weight(self, level: Level) -> float:
        """Of guidance at a level of the noise."""
        if self.guidance_interval is None:
            return self.guidance
        low, high = self.guidance_interval
        return self.guidance if low < _noise_level(level) <= high else 1.0

    def check(self, process: Process) -> None:
        """See `SamplingConfig.check`; also an interval that is none, or has no effect."""
        super().check(process)
        if self.guidance_interval is None:
            return
        given = f"sampling.guidance_interval={self.guidance_interval}"
        if len(self.guidance_interval) != 2 or not 0.0 <= self.guidance_interval[0] < self.guidance_interval[1]:
            raise UserError(f"{given} must be two noise levels, the lower one first: [0.3, 3].")
        if self.guidance == 1.0:
            raise UserError(f"{given} has no effect at guidance 1; give sampling.guidance, or leave out the interval.")
        levels = [process.level(t) for t in self.grid(process).timesteps]
        if all(self.weight(level) == 1.0 for level in levels):
            noise = [_noise_level(level) for level in levels]
            raise UserError(
                f"{given} has none of the noise levels of the steps, {min(noise):.3g} to {max(noise):.3g}; choose an "
                "interval that has some, or leave it out."
            )

    def check_classes(self, classes: int, *, guide: bool = False) -> None:
        """Raise UserError unless a model of that many classes (0: without) can be guided so, by another network where
        there is a `guide`."""
        if not math.isfinite(self.guidance):
            raise UserError(f"sampling.guidance={self.guidance} must be finite.")
        if not classes and not guide and self.guidance != 1.0:
            raise UserError(
                f"sampling.guidance={self.guidance} needs a model that was trained on classes (task.conditional=true "
                "task.label_dropout=0.1), or a worse one that guides it (--guide); leave it at 1."
            )


def _noise_level(level: Level) -> float:
    return level.sigma / level.alpha if level.alpha > 0 else math.inf


@dataclass(frozen=True)
class ImageSampler(Sampler):
    """A sampler of images, with guidance in its settings."""

    config: ImageSamplingConfig = field(default_factory=ImageSamplingConfig)

    def network_evaluations(self, strength: float = 1.0, resamplings: int = 1) -> int:
        """Evaluations of networks for one image: two for each prediction that is guided."""
        twice = self.worse_evaluations(strength, resamplings) if evaluations_per_step(self.config.guidance) > 1 else 0
        return self.predictions(strength, resamplings) + twice

    def predictions(self, strength: float = 1.0, resamplings: int = 1) -> int:
        """Predictions for one image, guided or not."""
        return super().network_evaluations(strength, resamplings)

    def worse_evaluations(self, strength: float = 1.0, resamplings: int = 1) -> int:
        """Evaluations for one image of what guidance leads away from: the null class, or another network."""
        if self.config.guidance == 1.0:
            return 0
        if self.config.guidance_interval is None:
            return self.predictions(strength, resamplings)
        return sum(self.config.weight(level) != 1.0 for level in self.levels(strength, resamplings))

    def denoiser(self, model: Model, condition: Tensor | None, worse: Denoiser | None = None) -> Denoiser | ByLevel:
        """See `Sampler.denoiser`: with guidance, away from `worse` where that is given, see `guided`."""
        within = guided(model, condition, self.config.guidance, worse)
        if self.config.guidance_interval is None:
            return within
        alone = guided(model, condition)
        return ByLevel(lambda level: alone if self.config.weight(level) == 1.0 else within)
