"""What the choices of noise have in common: their settings' base, and when they begin."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from policy_accel.diffusion.batch import Batch
from policy_accel.diffusion.deferred import Deferred
from policy_accel.diffusion.noise import IndependentNoise, Noise, NoiseChoice


@dataclass
class NoiseConfig:
    """Independent noise for every sample: the baseline, and the base of the other choices."""

    name: str = "independent"

    @property
    def center(self) -> str:
        """Whose prediction `Batch.center` must hold: none; ridge (whoever makes the batches gives it); denoiser."""
        return "none"

    @property
    def waits_for_score(self) -> bool:
        """Whether a score during training changes what the choice does from then on."""
        return False

    def check_run(self, *, steps: int, batch_size: int, evaluated: bool, remedy: str) -> None:
        """Raise ValueError when the choice could never begin, or never move a noise, in a run of `steps` updates.

        evaluated: whether there is a score before the last update. remedy: what would give one.
        """

    def build(self) -> NoiseChoice:
        """The choice. Raises ValueError for settings out of range."""
        return IndependentNoise()


@dataclass
class ChosenNoiseConfig(NoiseConfig):
    """What every choice but the independent one has: when it begins."""

    start_step: int = 0
    """Updates before the choice begins."""
    start_score: float | None = None
    """The choice begins after the first evaluation during training with at least this score; null for at once."""

    @property
    def waits_for_score(self) -> bool:
        """See the base class."""
        return self.start_score is not None

    def check_run(self, *, steps: int, batch_size: int, evaluated: bool, remedy: str) -> None:
        """See the base class."""
        if self.start_score is not None and not evaluated:
            raise ValueError(
                f"start_score={self.start_score} waits for an evaluation during training; {remedy}, or use start_step."
            )
        if self.start_step >= steps:
            raise ValueError(f"start_step={self.start_step} lies beyond the run of {steps} updates; lower it.")


def cost_mask(batch: Batch) -> Tensor | None:
    """Entries that take part in the cost: counted by the loss and not given."""
    unknown = None if batch.known is None else ~batch.known
    if batch.counted is None or unknown is None:
        return unknown if batch.counted is None else batch.counted
    return batch.counted & unknown


def logged(figures: dict[str, float]) -> dict[str, float]:
    """Figures by the names that they have in the log."""
    return {f"noise_{name.removeprefix('noise_')}": value for name, value in figures.items()}


@dataclass(kw_only=True)
class ChosenNoise(NoiseChoice):
    """A choice that begins after `start_step` updates, or after an evaluation with a score of at least `start_score`;
    until then noise is independent.

    Raises:
        ValueError: a start that cannot be.
    """

    start_step: int = 0
    start_score: float | None = None
    scored_from: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.start_step < 0:
            raise ValueError(f"start_step={self.start_step} must not be negative.")
        if self.start_score is not None and not math.isfinite(self.start_score):
            raise ValueError(f"start_score={self.start_score} must be a finite number, or null.")

    def chooses(self, step: int) -> bool:
        """Whether the noise of update number `step` is chosen."""
        if step < self.start_step:
            return False
        return self.start_score is None or (self.scored_from is not None and step >= self.scored_from)

    @abstractmethod
    def choose(self, batch: Batch, draw: Callable[[], Tensor], generator: torch.Generator) -> Deferred[Noise]:
        """`begin` of a step at which noise is chosen."""

    def begin(self, batch: Batch, draw: Callable[[], Tensor], generator: torch.Generator, step: int) -> Deferred[Noise]:
        """Choose from the start on."""
        return self.choose(batch, draw, generator) if self.chooses(step) else Deferred.of(Noise(draw()))

    def phase(self, step: int) -> Hashable:
        """Whether the choice has begun."""
        return self.chooses(step)

    def observe_score(self, updates: int, score: float) -> None:
        """The choice may begin; the batch of the next update may be prepared already."""
        if self.start_score is not None and self.scored_from is None and score >= self.start_score:
            self.scored_from = updates + 1

    def state_dict(self) -> dict[str, Any]:
        """Since when noise is chosen."""
        return {"scored_from": self.scored_from}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.scored_from = state["scored_from"]
