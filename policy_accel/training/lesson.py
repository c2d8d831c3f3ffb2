"""Targets that networks make, in place of those that the data give."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from policy_accel.diffusion import Batch, Noised
from policy_accel.models.denoiser import Denoiser


class Lesson(ABC):
    """What networks teach beside the data: the examples of every update go through it, before the loss.

    Attributes:
        asks_weights: whether it asks a network of the run itself. Where each process keeps a share of the weights
            (training.shard) none has the whole of one, and the run is refused.
        evaluations: of a network for each clean sample; the log counts what they cost.
        fingerprint: tells one teacher from another, so that a run does not go on with the lessons of another; "" where
            nobody from outside teaches.
    """

    asks_weights: bool = False
    evaluations: float = 0
    fingerprint: str = ""

    def to(self, device: torch.device) -> None:
        """Move its networks and tables to `device`."""

    def check_rows(self, rows: int) -> None:
        """Raise UserError unless it can teach `rows` examples at a time, which is what each share of a batch has."""

    @abstractmethod
    def __call__(self, batch: Batch, noised: Noised, model: Denoiser, average: Denoiser) -> Noised:
        """The examples with the inputs, times, targets and weights that are to be learnt.

        It is called without gradients, in the run's precision, with the rows of one share of the batch, and runs in the
        captured update: work of the device alone, that draws no random numbers and depends on a row's own sample, so
        that it does not matter how the batch is shared. Rows, shapes and `counted` stay.

        Args:
            batch: clean samples x0 [B, *S] with their condition, not yet encoded.
            noised: the examples [R, *S] as the objective drew them; those of one sample follow each other
                (`repeats`), and `noise` is what is in them.
            model: the network that is trained, in training mode; read only.
            average: its average, in eval mode; read only.
        """
