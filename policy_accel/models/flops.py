"""Floating-point operations of a training step, counted by torch's own counter."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


class _Plain(nn.Module):
    """The eager forward pass of a model, also of one that has been compiled in place."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = getattr(model, "_orig_mod", model)  # what torch.compile wraps

    def forward(self, *arguments: Tensor | None) -> Tensor:
        """Call the model past its compiled form."""
        output: Tensor = self.model.forward(*arguments)
        return output


def training_flops(model: nn.Module, shape: tuple[int, ...], condition_dim: int = 0) -> float:
    """Operations of one forward and backward pass of `model` for one sample.

    Multiplications and additions count separately, and matrix products, convolutions and attention alone count (what
    they leave out is below one per cent of the arithmetic of the image networks). The pass runs on the meta device:
    nothing is computed, and the model, its gradients and torch's random state stay as they are.

    Args:
        model: a denoiser, called as model(x [1, *shape], t [1], condition [1, condition_dim] or None).
        shape: of one sample: (C, H, W) for an image.
        condition_dim: entries of the condition, 0 for none.
    """
    plain = _Plain(model)
    tensors = {
        name: torch.empty_like(value, device="meta").requires_grad_(value.requires_grad)
        for name, value in (*plain.named_parameters(), *plain.named_buffers())
    }
    x = torch.empty(1, *shape, device="meta")
    t = torch.empty(1, device="meta")
    condition = torch.empty(1, condition_dim, device="meta") if condition_dim else None
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        functional_call(plain, tensors, (x, t, condition)).sum().backward()
    return float(counter.get_total_flops())
