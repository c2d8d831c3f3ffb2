"""In which order the numbers of images lie in memory. The weights decide: what they are convolved with follows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LAYOUTS = ("auto", "true", "false")


def lay_out(model: nn.Module, device: torch.device | str, channels_last: str = "auto") -> None:
    """Move `model`, as it was built, to a device, and lay the weights of its 2-D convolutions channels last if chosen.

    auto: on CUDA, whose tensor cores want it; not on the CPU, where it was hardly faster.
    """
    model.to(device)
    if channels_last == "true" or (channels_last == "auto" and torch.device(device).type == "cuda"):
        model.to(memory_format=torch.channels_last)


def laid_as(x: Tensor, weight: Tensor) -> Tensor:
    """x [B, C, H, W] in the order of the weights [C', C, k, k], k > 1, of the convolution that it enters.

    A CPU mixes both orders without a loss, so that there what lies channels last already stays so.
    """
    if weight.stride(1) == 1:
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous() if x.is_cuda else x
