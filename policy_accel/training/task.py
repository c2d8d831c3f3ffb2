"""What the training core asks of a track: batches of clean samples, and a score for a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from policy_accel.diffusion import Noised, Objective, weighted_squared_error


@dataclass(frozen=True)
class Batch:
    """Clean samples x0 [B, *S] with what the denoiser is told about them.

    condition: what the denoiser sees beside x_t, or None.
    counted: bool, broadcastable to [B, *S]: where the loss counts; None counts everything.
    known: bool, broadcastable to [B, *S]: entries that are given (in-painting) and so never noised; None for none.
    """

    x0: Tensor
    condition: Tensor | None = None
    counted: Tensor | None = None
    known: Tensor | None = None


class Task(Protocol):
    """A data set with the model that is trained on it and a way to score that model.

    `fingerprint` tells one data set from another, so that a run is not continued on other data.
    """

    model: nn.Module
    objective: Objective
    samples: int
    validation_samples: int
    fingerprint: str

    def to(self, device: torch.device) -> None:
        """Move model, data and tables to `device`."""

    def batch(self, indices: Tensor) -> Batch:
        """Training samples `indices` [B] int64 in [0, samples)."""

    def validation_batch(self, indices: Tensor) -> Batch:
        """Validation samples `indices` [B] int64 in [0, validation_samples)."""

    def evaluate(self, model: nn.Module, report: Callable[[str], None]) -> dict[str, Any] | None:
        """Score `model` (the EMA copy): a JSON-able dictionary with at least "score", or None when it has no score."""


def denoising_loss(model: nn.Module, batch: Batch, noised: Noised) -> Tensor:
    """Weighted squared error of the model's prediction on one noised batch, a float32 scalar."""
    prediction = model(noised.model_input, noised.t, batch.condition)
    return weighted_squared_error(prediction, noised.target, weight=noised.weight, mask=batch.counted)
