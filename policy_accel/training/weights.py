"""Where the weights of a run and their gradients lie: all of them in every process."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from policy_accel.models.denoiser import Denoiser
from policy_accel.training.flat import flatten_parameters
from policy_accel.training.gradients import SummedGradients
from policy_accel.training.ranks import ALONE, Ranks

Tensors = dict[str, Tensor]


class Weights:
    """The weights of a model as views of one buffer, so that one kernel reaches them; every process has them all.

    Args:
        model: whose parameters become such views.
        ranks: the processes that train it.
        reduced: dtype in which they exchange gradients.

    Attributes:
        live: what the averages follow.
        scattered: whether this process has a part of them alone.
    """

    scattered = False

    def __init__(self, model: Denoiser, ranks: Ranks = ALONE, reduced: torch.dtype = torch.float32) -> None:
        self.model, self.ranks = model, ranks
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.live: list[Tensor] = self._laid_out()
        self.gradients = SummedGradients(self.parameters, ranks, reduced)

    def _laid_out(self) -> list[Tensor]:
        return [flatten_parameters(self.model)]

    def copied(self) -> tuple[Denoiser, list[Tensor]]:
        """A second model, in eval mode and without gradients, and those of its tensors that follow `live`, in order."""
        model = copy.deepcopy(self.model).eval().requires_grad_(False)
        return model, [flatten_parameters(model)]

    def refresh(self, model: Denoiser) -> None:
        """Make a copy whole, of which each process moved its part; all processes call it together."""

    @contextmanager
    def exchanged(self) -> Iterator[None]:
        """Within it the network may be run and differentiated."""
        yield

    def sum_gradients_(self) -> None:
        """Give every process the gradients of the whole batch, or its part of them."""
        self.gradients.sum_()

    def clip_gradients_(self, largest: float) -> Tensor:
        """Scale the gradients so that their 2-norm is at most `largest`; gives their norm before, 0-dim."""
        return nn.utils.clip_grad_norm_(self.parameters, largest, foreach=True)

    def finite(self) -> Tensor:
        """Whether every weight is a finite number: a bool on the device."""
        return torch.stack([part.isfinite().all() for part in self.live]).all()

    def whole(self, tensors: Tensors) -> Tensors:
        """Tensors of the model or of the optimiser as a checkpoint has them; all processes call it together."""
        return tensors

    def own(self, tensors: Tensors) -> Tensors:
        """The reverse of `whole`."""
        return tensors
