"""Which noise each sample gets. The baseline's; others derive from `NoiseChoice`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from policy_accel.diffusion.batch import Batch
from policy_accel.diffusion.deferred import Deferred


@dataclass(frozen=True)
class Noise:
    """The noise of a batch [R, *S]; `permutation` [R] int64 says which row of the pool each sample got, where rows of
    one pool were exchanged."""

    noise: Tensor
    permutation: Tensor | None = None


class NoiseChoice(ABC):
    """Which noise each sample gets, and what the training core must know of a choice.

    Attributes:
        on_host: whether a part of choosing is work of the host (`Deferred.host`).
        ahead: whether that takes long enough for the next batch to be begun while this one trains.
        last: what the newest choice was, for `statistics`.
    """

    on_host: bool = False
    ahead: bool = False
    last: Any = None

    @abstractmethod
    def begin(self, batch: Batch, draw: Callable[[], Tensor], generator: torch.Generator, step: int) -> Deferred[Noise]:
        """Start choosing for the rows of `batch`; `draw` gives an independent pool [R, *S] from `generator`."""

    def goes_by_rows(self, rows: int) -> bool:
        """Whether the noise of each `rows` rows in a row follows from these rows and their part of the pool alone."""
        return False

    def wants_prediction(self, step: int) -> bool:
        """Whether `Batch.center` of the batch of `step` must be the EMA model's prediction from pure noise."""
        return False

    def phase(self, step: int) -> Hashable:
        """What of the choice depends on the step; it changes a few times in a run, and a captured update with it."""
        return None

    def observe_score(self, updates: int, score: float) -> None:
        """Take note of a score after `updates` updates."""

    def statistics(self) -> dict[str, float]:
        """Figures of the last choice, for the log; may wait for the device."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state, for a checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""


@dataclass(frozen=True)
class IndependentNoise(NoiseChoice):
    """epsilon ~ N(0, I), whatever the sample: the baseline."""

    def goes_by_rows(self, rows: int) -> bool:
        """Always."""
        return True

    def begin(self, batch: Batch, draw: Callable[[], Tensor], generator: torch.Generator, step: int) -> Deferred[Noise]:
        """Take the pool as it is."""
        return Deferred.of(Noise(draw()))
