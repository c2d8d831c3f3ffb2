"""What the training core asks of a track: batches of clean samples, and a score for a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from policy_accel.diffusion import Batch, Noised, Objective, squared_errors, weighted_squared_error
from policy_accel.diffusion.batch import Condition
from policy_accel.models.denoiser import Denoiser

__all__ = ["Batch", "Condition", "Task", "denoising_loss", "denoising_loss_and_errors"]


class Task(Protocol):
    """A data set with the model that is trained on it and a way to score that model.

    `fingerprint` tells one data set from another, so that a run is not continued on other data. `groups` [samples]
    int64, on the device, are equal where samples have (nearly) the same condition; batches then hold runs of
    `group_run` samples of one group. None for batches in a plain random order.

    A task may have `flops_per_sample` (float or None): floating-point operations of the network for one noised row,
    forward and backward; the log then says what training has cost in them. It may have a `description` (JSON-able):
    what of the data must be known to use the trained model without them; checkpoints keep it in their state as "task".
    """

    model: Denoiser
    objective: Objective
    samples: int
    validation_samples: int
    fingerprint: str
    groups: Tensor | None
    group_run: int

    def to(self, device: torch.device) -> None:
        """Move model, data and tables to `device`."""

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Training samples `indices` [B] int64 in [0, samples).

        What is random about them (augmentation, dropped labels) is drawn from `generator`, on the task's device: a
        stream of its own that checkpoints restore, also where batches are made ahead.
        """

    def validation_batch(self, indices: Tensor) -> Batch:
        """Validation samples `indices` [B] int64 in [0, validation_samples); nothing about them is random."""

    def evaluate(self, model: Denoiser, report: Callable[[str], None], *, step: int) -> dict[str, Any] | None:
        """Score `model` (the EMA copy) after `step` updates: a JSON-able dictionary with at least "score", or None
        when it has no score.
        """


def predict(model: Denoiser, batch: Batch, noised: Noised) -> Tensor:
    """The model's prediction for every row of `noised`, [R, *S].

    The condition is encoded once for each clean sample, however many rows it has.
    """
    condition = model.encode(batch.condition)
    if condition is not None and noised.repeats > 1:
        condition = condition.repeat_interleave(noised.repeats, dim=0)
    return model(noised.model_input, noised.t, condition)


def denoising_loss(model: Denoiser, batch: Batch, noised: Noised) -> Tensor:
    """Weighted squared error of the model's prediction on one noised batch, a float32 scalar."""
    prediction = predict(model, batch, noised)
    return weighted_squared_error(prediction, noised.target, weight=noised.weight, mask=noised.counted)


def denoising_loss_and_errors(model: Denoiser, batch: Batch, noised: Noised) -> tuple[Tensor, Tensor]:
    """The same, with the unweighted error of each row [R], for laws of time that learn from it."""
    prediction = predict(model, batch, noised)
    loss = weighted_squared_error(prediction, noised.target, weight=noised.weight, mask=noised.counted)
    return loss, squared_errors(prediction.detach(), noised.target, noised.counted)
