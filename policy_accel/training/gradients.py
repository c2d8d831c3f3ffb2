"""The gradients of all ranks, summed in one piece."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from policy_accel.training.flat import ALIGNMENT
from policy_accel.training.ranks import Ranks


class SummedGradients:
    """Sums the gradients of `parameters` over the ranks: one buffer, so one message.

    Args:
        parameters: those without a gradient at the first sum never have one.
        ranks: whose gradients are summed.
        dtype: of the buffer; bfloat16 halves what goes over the wire, and rounds it.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], ranks: Ranks, dtype: torch.dtype = torch.float32) -> None:
        self.parameters, self.ranks, self.dtype = parameters, ranks, dtype
        self._buffer: Tensor
        self._views: list[Tensor] = []

    @torch.no_grad()
    def sum_(self) -> None:
        """Put the sum of the gradients of all ranks in the place of the own ones; alone nothing is done."""
        if self.ranks.count == 1:
            return
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if not self._views:
            sizes = [-(-gradient.numel() // ALIGNMENT) * ALIGNMENT for gradient in gradients]
            self._buffer = gradients[0].new_zeros(sum(sizes), dtype=self.dtype)
            parts = zip(self._buffer.split(sizes), gradients, strict=True)
            self._views = [part.as_strided(gradient.shape, gradient.stride()) for part, gradient in parts]
        torch._foreach_copy_(self._views, gradients)
        self.ranks.sum_(self._buffer)
        torch._foreach_copy_(gradients, self._views)
