"""The nearest noise as part of an objective, and its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from policy_accel.acceleration.nearest_noise import DEFAULT_METRIC, METRICS, NearestNoise, nearest_noise
from policy_accel.acceleration.noise_choices import (
    ChoiceStart,
    ChosenNoise,
    ChosenNoiseConfig,
    cost_mask,
    logged,
)
from policy_accel.acceleration.noise_statistics import assignment_statistics
from policy_accel.diffusion.batch import Batch
from policy_accel.diffusion.deferred import Deferred
from policy_accel.diffusion.noise import Noise, NoiseChoice
from policy_accel.errors import check_choice


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
        if self.candidates < 1:
            raise ValueError(f"candidates={self.candidates} must be at least 1.")
        check_choice("metric", self.metric, METRICS)
        return NearestChoice(self.candidates, self.metric, self.start())


class NearestChoice(ChosenNoise):
    """Each sample keeps the nearest of its own candidates; candidates and metric as for `nearest_noise`."""

    def __init__(self, candidates: int, metric: str, start: ChoiceStart | None = None) -> None:
        super().__init__(start)
        self.candidates, self.metric = candidates, metric
        self.last: tuple[Batch, NearestNoise] | None = None

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
