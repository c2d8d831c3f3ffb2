"""Weights of a ResNet-18 as torchvision would have them after a training, written to files."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import safetensors.torch
import torch
from torch import nn
from torchvision.models import resnet18


@cache
def trained_resnet18(seed: int = 0) -> nn.Module:
    """torchvision's network with made-up weights and statistics, in eval mode; not to be changed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        network = resnet18(weights=None)
    network.to_empty(device="cpu")
    for name, tensor in network.state_dict().items():
        draw = torch.rand(tensor.shape, generator=generator)
        tensor.zero_()
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.copy_(0.5 + draw)
        elif tensor.ndim == 1:
            tensor.copy_(draw - 0.5)
        elif tensor.ndim:
            tensor.copy_((draw - 0.5) * (12 / tensor[0].numel()) ** 0.5)
    return network.eval()


def write_resnet18(path: Path, seed: int = 0) -> Path:
    """The state of `trained_resnet18`, as .safetensors or as torch.save writes it."""
    state = trained_resnet18(seed).state_dict()
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path
