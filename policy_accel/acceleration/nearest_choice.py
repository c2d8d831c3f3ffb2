"""The nearest noise as part of an objective, and its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from policy_accel.acceleration.nearest_noise import DEFAULT_METRIC, NearestNoise, check_nearest, nearest_noise
from policy_accel.acceleration.noise_choices import ChosenNoise, ChosenNoiseConfig, cost_mask, logged
from policy_accel.acceleration.noise_statistics import assignment_statistics
from policy_accel.diffusion.batch import Batch
from policy_accel.diffusion.deferred import Deferred
from policy_accel.diffusion.noise import Noise, NoiseChoice


@dataclass
class NearestNoiseConfig(ChosenNoiseConfig):
    """Each sample keeps the nearest of its own candidates (Improved Immiscible Diffusion, arXiv 2505.18521)."""

    name: str = "nearest"
    candidates: int = 2
    """Noises drawn for each sample."""
    metric: str = DEFAULT_METRIC
    """l2 (as published), or dot, which leaves the norm of the noise nearly alone."""

    def build(self) -> NoiseChoice:
        """See the base class."""
        check_nearest(self.candidates, self.metric)
        return NearestChoice(self.candidates, self.metric, start_step=self.start_step, start_score=self.start_score)


@dataclass
class NearestChoice(ChosenNoise):
    """Each sample keeps the nearest of its own candidates; candidates and metric as for `nearest_noise`."""

    candidates: int
    metric: str
    last: tuple[Batch, NearestNoise] | None = field(default=None, init=False)

    def choose(self, batch: Batch, draw: Callable[[], Tensor], generator: torch.Generator) -> Deferred[Noise]:
        """Draw `candidates` noises for each sample and keep one."""
        chosen = nearest_noise(
            batch.x0, candidates=self.candidates, metric=self.metric, generator=generator, mask=cost_mask(batch)
        )
        self.last = (batch, chosen)
        return Deferred.of(Noise(chosen.noise))

    def statistics(self) -> dict[str, float]:
        """Figures of the last choice; waits for the device."""
        if self.last is None:
            return {}
        batch, chosen = self.last
        figures = assignment_statistics(batch.x0, chosen.noise, chosen.noise, chosen.candidate, cost_mask(batch))
        return logged(
            {
                "distance_after": float(figures.distance_after),
                "alignment": float(figures.alignment),
                "noise_square": float(figures.noise_square),
                "rows_moved": float((chosen.candidate > 0).float().mean()),
            }
        )
