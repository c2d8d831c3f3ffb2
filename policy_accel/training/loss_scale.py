"""The factor on the loss of an update in fp16."""

from __future__ import annotations

import torch
from torch import Tensor

START, GROWTH, BACKOFF, INTERVAL = 2.0**16, 2.0, 0.5, 2000
"""Those of torch.amp.GradScaler."""


class LossScale:
    """Keeps small gradients from being zeros in fp16 (Micikevicius et al. 2018, section 3.2).

    The loss is multiplied by `factor`, and the gradients are divided by it. An update whose gradients are not all
    finite is left out and halves the factor; `INTERVAL` good ones in a row double it. Rule and kernels are those of
    torch.amp.GradScaler; this one never asks the host, keeps its memory, and so can be captured.

    Attributes:
        factor: 0-dim float32, on the device.
        left_out: 0-dim float32 there, 1 where the gradients of the present update are not all finite, else 0.
    """

    def __init__(self, device: torch.device) -> None:
        self.factor = torch.full((), START, device=device)
        self.left_out = torch.zeros((), device=device)
        self._good = torch.zeros((), dtype=torch.int32, device=device)

    def unscale(self, gradients: list[Tensor], times: float = 1.0) -> None:
        """Multiply gradients, float32, by `times` over the factor in place, and see whether they are finite."""
        self.left_out.zero_()
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, self.left_out, times / self.factor)

    def follow(self) -> None:
        """Move the factor after the update."""
        torch._amp_update_scale_(self.factor, self._good, self.left_out, GROWTH, BACKOFF, INTERVAL)

    def state_dict(self) -> dict[str, Tensor]:
        """The factor, and the good updates since it moved."""
        return {"factor": self.factor, "good": self._good}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        self.factor.copy_(tensors["factor"])
        self._good.copy_(tensors["good"])
