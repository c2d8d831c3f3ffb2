"""Each sample keeps the nearest of a few noises of its own (Improved Immiscible Diffusion, arXiv 2505.18521, alg. 1).

Unlike an assignment this changes the noise itself. Given the data its density is at most k times that of N(0, I) and
the divergence from N(0, I) is ln k - 1 + 1/k nats in any dimension (derived from the order statistics of k independent
draws, not printed in the paper). `l2` prefers short noises, so E ||n||^2 / D falls below 1; `dot` only moves the noise
along the sample and leaves its orthogonal part exactly N(0, I).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policy_accel.acceleration.noise_assignment import cost_dtype, counted_entries
from policy_accel.errors import UserError, did_you_mean

METRICS = ("dot", "l2")
DEFAULT_METRIC = "l2"


@dataclass(frozen=True)
class NearestNoise:
    """noise [B, *S] in the dtype of its candidates; candidate [B] int64: which of the k was kept."""

    noise: Tensor
    candidate: Tensor


def nearest_noise(
    data: Tensor,
    *,
    candidates: int,
    metric: str = DEFAULT_METRIC,
    generator: torch.Generator,
    mask: Tensor | None = None,
) -> NearestNoise:
    """Draw `candidates` noises for every row of data [B, *S] in one call and keep the one that `choose_nearest` picks.

    With one candidate the noise equals `torch.randn(data.shape, generator=generator)` bitwise; k candidates advance the
    generator k times as far. Costs B k D numbers of memory, no communication, no wait for the device.

    Raises:
        UserError: `candidates` is not a whole number of at least 1, or what `choose_nearest` raises.
    """
    if not isinstance(candidates, int) or isinstance(candidates, bool) or candidates < 1:
        raise UserError(f"candidates={candidates!r}; give a whole number of noises to choose from, 1 or more.")
    shape = (data.shape[0], candidates, *data.shape[1:])
    drawn = torch.randn(shape, device=data.device, dtype=data.dtype, generator=generator)
    return choose_nearest(data, drawn, metric=metric, mask=mask)


@torch.no_grad()
def choose_nearest(
    data: Tensor, candidates: Tensor, *, metric: str = DEFAULT_METRIC, mask: Tensor | None = None
) -> NearestNoise:
    """Keep for each row of data [B, *S] one of its candidates [B, k, *S]; the first one on ties.

    metric: `l2` keeps the nearest, as published; `dot` the most aligned, the largest x.z. mask: bool, broadcastable to
    data, False where an entry does not count. The comparison is in float32, or float64 if data is. It takes no random
    number, so torch.compile captures it whole.

    Raises:
        UserError: an unknown metric, candidates that do not fit data, a mask that does not fit.
    """
    if metric not in METRICS:
        raise UserError(f"metric '{metric}' is unknown; {did_you_mean(metric, METRICS)}")
    if candidates.ndim != data.ndim + 1 or (candidates.shape[0], *candidates.shape[2:]) != data.shape:
        raise UserError(
            f"candidates {list(candidates.shape)} do not fit data {list(data.shape)}; give [B, k, *S] beside [B, *S]."
        )
    counted = counted_entries(data, mask)
    with torch.autocast(data.device.type, enabled=False):
        dtype = cost_dtype(data)
        x = data.reshape(data.shape[0], -1).to(dtype)
        z = candidates.reshape(*candidates.shape[:2], -1).to(dtype)
        if counted is not None:
            x, z = x.masked_fill(~counted, 0.0), z.masked_fill(~counted.unsqueeze(1), 0.0)
        aligned = (z @ x.unsqueeze(-1)).squeeze(-1)
        # ||x - z||^2 without ||x||^2, which all candidates of a sample share.
        score = 2.0 * aligned - torch.linalg.vector_norm(z, dim=-1).square() if metric == "l2" else aligned
        candidate = score.argmax(dim=1)
    return NearestNoise(candidates[torch.arange(data.shape[0], device=data.device), candidate], candidate)
