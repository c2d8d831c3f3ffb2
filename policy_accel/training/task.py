"""What the training core asks of a track: batches of clean samples, and a score for a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from policy_accel.diffusion import Batch, Objective
from policy_accel.errors import UserError
from policy_accel.models.denoiser import Denoiser
from policy_accel.training.checkpoint import Checkpoint
from policy_accel.training.lesson import Lesson

Draws = Mapping[str, Tensor]
"""Random numbers of a batch by name, each with a row for every sample."""
NOTHING: Draws = MappingProxyType({})


class Task(ABC):
    """A data set with the model that is trained on it and a way to score that model.

    Attributes:
        model: the denoiser.
        objective: noise, timesteps and target.
        samples: training samples.
        fingerprint: tells one data set from another, so that a run is not continued on other data.
        validation_samples: held-out samples; 0 for no validation loss.
        resident: whether `batch` is work of the device alone: the data lie there. Otherwise a thread reads ahead.
        groups: [samples] int64, on the device, equal where samples have (nearly) the same condition; batches then hold
            runs of `group_run` samples of one group. None for batches in a plain random order.
        group_run: see `groups`.
        flops_per_sample: floating-point operations of the network for one noised row, forward and backward, or None;
            the log then says what training has cost in them.
        lesson: makes targets for the examples of every update, or None for those of the data.
        heading: what a run says of it before the first update: a word -> what is behind it, as "data", "sees", "score".
        description: JSON-able: what must be known of the data to use the trained model without them; checkpoints keep
            it in their state as "task".
    """

    model: Denoiser
    objective: Objective
    samples: int
    fingerprint: str
    validation_samples: int = 0
    resident: bool = True
    groups: Tensor | None = None
    group_run: int = 1
    flops_per_sample: float | None = None
    lesson: Lesson | None = None
    heading: Mapping[str, str] = MappingProxyType({})
    description: Mapping[str, Any] = MappingProxyType({})

    def identity(self) -> dict[str, str]:
        """What a run learns from, for its checkpoints: the data, and who teaches beside them."""
        teacher = "" if self.lesson is None else self.lesson.fingerprint
        return {"data": self.fingerprint} | ({"teacher": teacher} if teacher else {})

    def check_continued(self, checkpoint: Checkpoint, run_dir: Path) -> None:
        """Raise UserError when the run with the `checkpoint` learnt from something else."""
        state = checkpoint.state
        if state["data"] != self.fingerprint:
            raise UserError(
                f"{run_dir} was trained on other data than the task has now (another file, or a changed one); put "
                f"the data back, or choose another run_dir (with init_from={run_dir} it begins with these weights)."
            )
        if state.get("teacher") != self.identity().get("teacher"):
            raise UserError(
                f"{run_dir} was taught by another network than the teacher is now; put that one back, or choose "
                "another run_dir."
            )

    def training_flops(self, samples: int) -> float | None:
        """Floating-point operations of the networks in updates with `samples` clean samples together, or None."""
        if self.flops_per_sample is None:
            return None
        passes: float = self.objective.repetition.repeats
        if self.lesson is not None:
            passes += self.lesson.evaluations / 3  # a forward and a backward pass are three forward passes
        return samples * passes * self.flops_per_sample

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move model, objective, data and tables to `device`."""

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """What is random about a batch of `count` samples beside their choice: augmentation, dropped labels.

        It is drawn from `generator`, on the task's device: a stream of its own that checkpoints restore, also where
        batches are made ahead. Some rows of it may be all that a process needs.
        """
        return NOTHING

    @abstractmethod
    def batch(self, indices: Tensor, drawn: Draws) -> Batch:
        """Training samples `indices` [B] int64 in [0, samples), with what `draw` gave for them."""

    @abstractmethod
    def validation_batch(self, indices: Tensor) -> Batch:
        """Held-out samples `indices` [B] int64 in [0, validation_samples); nothing about them is random."""

    def evaluate(self, model: Denoiser, report: Callable[[str], None], *, step: int) -> dict[str, Any] | None:
        """Score `model` (the EMA copy) after `step` updates: a JSON-able dictionary with at least "score", or None
        when it has no score.
        """
        return None

    def close(self) -> None:
        """Let go of what scoring holds, such as processes."""
