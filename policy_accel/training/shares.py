"""The part of a batch that this process trains on, in pieces that fit its device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policy_accel.diffusion import Batch, Noised
from policy_accel.training.ranks import Ranks


@dataclass(frozen=True)
class Share:
    """Some rows of a batch; their loss is the sum of their errors over the elements that count in the whole batch.

    of: number of these elements, 0-dim; None where these rows are the whole batch.
    """

    batch: Batch
    noised: Noised
    of: Tensor | None = None


def shares_of(batch: Batch, noised: Noised, ranks: Ranks, pieces: int, *, only_own: bool = False) -> list[Share]:
    """The own rows of a batch, in `pieces` whose losses add up, over the ranks too, to the loss of the batch.

    Args:
        batch: the whole batch [B, ...]; B is a multiple of the ranks times `pieces`.
        noised: what it is trained on.
        ranks: who trains on it.
        pieces: to go through the network one after the other.
        only_own: whether `batch` has no other rows than the own ones.
    """
    if ranks.count == 1 and pieces == 1:
        return [Share(batch, noised)]
    of, own = counted_elements(noised), slice(0, len(batch.x0))
    if only_own:
        ranks.sum_(of)
    else:
        own = ranks.own(len(batch.x0))
    size = (own.stop - own.start) // pieces
    begins = range(own.start, own.stop, size)
    parts = [slice(begin, begin + size) for begin in begins]
    of.clamp_(min=1.0)
    return [Share(batch.rows(part), noised.of_samples(part), of) for part in parts]


def counted_elements(noised: Noised) -> Tensor:
    """Number of elements of the target that the loss counts, 0-dim float32."""
    target, counted = noised.target, noised.counted
    if counted is None:
        return torch.full((), float(target.numel()), device=target.device)
    return (counted.sum() * (target.numel() / counted.numel())).float()
