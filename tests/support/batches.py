"""Batches and pictures with what is random about them."""

from __future__ import annotations

import torch
from torch import Tensor

from policy_accel.diffusion import Batch
from policy_accel.policy.image_store import ImageStore
from policy_accel.training import Task


def batch_of(task: Task, indices: Tensor, generator: torch.Generator) -> Batch:
    """Training samples `indices`, with what `generator` gives."""
    return task.batch(indices, task.draw(len(indices), generator))


def cut_out(store: ImageStore, rows: Tensor, crop: int | None, generator: torch.Generator) -> dict[str, Tensor]:
    """Frames `rows`, cut out where `generator` says, or whole."""
    return store.gather(rows, crop=crop, places=None if crop is None else store.places(rows.shape, crop, generator))
