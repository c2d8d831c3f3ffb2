"""The parameters of a model in one buffer, so that one kernel reaches all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ALIGNMENT = 64
"""Elements: every parameter begins at a multiple, as the fastest kernels want."""


@torch.no_grad()
def flatten_parameters(model: nn.Module) -> Tensor:
    """Make every parameter of `model` a view of one float32 buffer, which is returned; values stay."""
    parameters = list(model.parameters())
    sizes = [-(-parameter.numel() // ALIGNMENT) * ALIGNMENT for parameter in parameters]
    buffer = parameters[0].new_zeros(sum(sizes))
    for parameter, part in zip(parameters, buffer.split(sizes), strict=True):
        view = part.as_strided(parameter.shape, parameter.stride())
        view.copy_(parameter.detach())
        parameter.data = view
    return buffer
