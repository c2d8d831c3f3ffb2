"""AdamW whose learning rate and first beta are numbers on the device: momentum decay in a captured update."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from policy_accel.training.adamw import AdamW


class DecayingAdamW(AdamW):
    """AdamW, its state and its arithmetic, with lr and beta as 0-dim float64 tensors on the device.

    torch's own forms take beta as a number of the host, which a CUDA graph would freeze, or wait for the device. The
    bias is corrected with the present beta, as torch does.
    """

    def _move(
        self,
        parameters: list[Any],
        gradients: list[Any],
        means: list[Tensor],
        squares: list[Tensor],
        steps: list[Tensor],
        *,
        lr: Any,
        beta: Any,
        weight_decay: float,
        left_out: Tensor | None,
    ) -> None:
        """Loshchilov & Hutter 2019, algorithm 2, as in torch."""
        beta_2 = self.betas[1]
        state = [*parameters, *means, *squares, *steps]
        before = [] if left_out is None else [tensor.clone() for tensor in state]
        torch._foreach_add_(steps, 1)
        done = steps[0].double()
        torch._foreach_mul_(parameters, (1.0 - lr * weight_decay).float())
        change = torch._foreach_sub(gradients, means)
        torch._foreach_mul_(change, (1.0 - beta).float())
        torch._foreach_add_(means, change)
        torch._foreach_mul_(squares, beta_2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - beta_2)
        denominator = torch._foreach_sqrt(squares)
        torch._foreach_div_(denominator, (1.0 - beta_2**done).sqrt().float())
        torch._foreach_add_(denominator, self.eps)
        moves = torch._foreach_div(means, denominator)
        torch._foreach_mul_(moves, (-lr / (1.0 - beta**done)).float())
        torch._foreach_add_(parameters, moves)
        if left_out is not None:
            kept = [torch.where(left_out > 0, old, new) for old, new in zip(before, state, strict=True)]
            torch._foreach_copy_(state, kept)
