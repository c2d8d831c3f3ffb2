"""AdamW whose learning rate and first beta are numbers on the device: momentum decay in a captured update."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class DecayingAdamW(torch.optim.AdamW):
    """torch.optim.AdamW, its state and its arithmetic, with lr and betas[0] as 0-dim float64 tensors on the device.

    torch's own forms take beta as a number of the host, which a CUDA graph would freeze, or wait for the device. The
    bias is corrected with the present beta, as torch does.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter] = {
                        "step": torch.zeros((), device=parameter.device),
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }
            states = [self.state[p] for p in parameters]
            _step(
                parameters,
                [p.grad for p in parameters],
                *([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")),
                lr=group["lr"],
                beta_1=group["betas"][0],
                beta_2=group["betas"][1],
                eps=group["eps"],
                weight_decay=group["weight_decay"],
            )


def _step(
    parameters: list[Tensor],
    gradients: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    steps: list[Tensor],
    *,
    lr: Tensor,
    beta_1: Tensor,
    beta_2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """Loshchilov & Hutter 2019, algorithm 2, as in torch; `lr` and `beta_1` are 0-dim float64."""
    torch._foreach_add_(steps, 1)
    done = steps[0].double()
    torch._foreach_mul_(parameters, (1.0 - lr * weight_decay).float())
    change = torch._foreach_sub(gradients, means)
    torch._foreach_mul_(change, (1.0 - beta_1).float())
    torch._foreach_add_(means, change)
    torch._foreach_mul_(squares, beta_2)
    torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - beta_2)
    denominator = torch._foreach_sqrt(squares)
    torch._foreach_div_(denominator, (1.0 - beta_2**done).sqrt().float())
    torch._foreach_add_(denominator, eps)
    moves = torch._foreach_div(means, denominator)
    torch._foreach_mul_(moves, (-lr / (1.0 - beta_1**done)).float())
    torch._foreach_add_(parameters, moves)
