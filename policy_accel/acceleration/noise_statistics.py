"""What choosing the noise changed, over the entries that count."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AssignmentStatistics:
    """What choosing the noise changed; 0-dim tensors on the data's device.

    distance_before, distance_after: mean L2 distance of a sample to its noise. alignment: mean of x n over the counted
    entries, x.n / D. noise_square: mean of n^2 over the same (1 for N(0, I)). rows_moved: share of rows, in [0, 1].
    """

    distance_before: Tensor
    distance_after: Tensor
    alignment: Tensor
    noise_square: Tensor
    rows_moved: Tensor


@torch.no_grad()
def assignment_statistics(
    data: Tensor, before: Tensor, after: Tensor, permutation: Tensor, mask: Tensor | None = None
) -> AssignmentStatistics:
    """Compare data [B, *S] with its noise before and after the assignment, over the entries that `mask` counts.

    Nothing waits for the device. `permutation` [B] as in `Assignment`; `mask` as in `assign_noise`.
    """
    counted = counted_entries(data, mask)

    def rows(values: Tensor) -> Tensor:
        flat = values.reshape(len(values), -1).to(cost_dtype(data))
        return flat if counted is None else flat.masked_fill(~counted, 0.0)

    x, pool, n = rows(data), rows(before), rows(after)
    entries = x.numel() if counted is None else counted.sum().clamp(min=1)
    return AssignmentStatistics(
        distance_before=torch.linalg.vector_norm(x - pool, dim=1).mean(),
        distance_after=torch.linalg.vector_norm(x - n, dim=1).mean(),
        alignment=(x * n).sum() / entries,
        noise_square=n.square().sum() / entries,
        rows_moved=(permutation != torch.arange(len(permutation), device=permutation.device)).float().mean(),
    )


def cost_dtype(data: Tensor) -> torch.dtype:
    """The precision of costs: float64 for float64 data, else float32."""
    return torch.float64 if data.dtype == torch.float64 else torch.float32


def counted_entries(data: Tensor, mask: Tensor | None) -> Tensor | None:
    """The mask as [B, D] bool beside the flattened data, None where every entry counts.

    Raises:
        ValueError: the mask is not bool or cannot be broadcast to data.
    """
    if mask is None:
        return None
    fits = mask.ndim <= data.ndim and all(
        m in (1, s) for m, s in zip(reversed(mask.shape), reversed(data.shape), strict=False)
    )
    if mask.dtype != torch.bool or not fits:
        raise ValueError(
            f"mask: {mask.dtype} of shape {list(mask.shape)} was given; give a bool mask that broadcasts to data "
            f"{list(data.shape)}."
        )
    return mask.expand(data.shape).reshape(len(data), -1)
