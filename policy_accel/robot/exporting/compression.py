"""Weights in fewer bits: bf16, or int8 with a scale for each row. They are expanded to float32 before use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

WEIGHTS = ("fp32", "bf16", "int8")
SCALE = "scale"
LARGEST = 127.0


@dataclass(frozen=True)
class Compressed:
    """One tensor of a policy as it is kept: part -> tensor, the tensor itself as ""."""

    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, name: str, tensor: Tensor, weights: str) -> Compressed:
        """A tensor of a state kept as `weights` (one of `WEIGHTS`). That concerns what networks multiply with; biases,
        the tables of normalisers and everything else of fewer than two dimensions stay as they are."""
        if weights == "fp32" or tensor.ndim < 2 or tensor.dtype != torch.float32:
            return cls({"": tensor})
        if weights == "bf16":
            return cls({"": tensor.to(torch.bfloat16)})
        largest = tensor.flatten(1).abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
        scale = (largest / LARGEST).view(-1, *([1] * (tensor.ndim - 1)))
        return cls({"": (tensor / scale).round().clamp(-LARGEST, LARGEST).to(torch.int8), SCALE: scale})

    @staticmethod
    def expanded(tensors: Mapping[str, Tensor]) -> Tensor:
        """The tensor that networks use, of its parts."""
        kept = tensors[""]
        if SCALE in tensors:
            return kept.float() * tensors[SCALE]
        return kept.float() if kept.dtype == torch.bfloat16 else kept
