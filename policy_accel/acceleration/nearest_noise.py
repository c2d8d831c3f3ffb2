"""Each sample keeps the nearest of a few noises drawn for it (Improved Immiscible Diffusion, arXiv 2505.18521, alg. 1).

Unlike an assignment this changes the noise itself. Given the data its density is at most k times that of N(0, I) and
the divergence from N(0, I) is ln k - 1 + 1/k nats in any dimension (derived from the order statistics of k independent
draws, not printed in the paper). `l2` prefers short noises, so E ||n||^2 / D falls below 1; `dot` only moves the noise
along the sample and leaves its orthogonal part exactly N(0, I).

The k noises need not be drawn (derived here; the distribution is exactly that of the published algorithm). Write a
candidate as z = a x/||x|| + r v, with v a unit vector across x. Then a ~ N(0, 1), r^2 ~ chi^2(D - 1) and v are
independent, and neither ||x - z||^2 = ||x||^2 - 2 a ||x|| + a^2 + r^2 nor x.z = a ||x|| contains v. So the choice needs
k pairs (a, r) a sample, and the kept noise is the chosen pair with any v that had no part in the choice: one z serves
all. The pair of z itself is the first candidate; where another wins, z is moved along x and stretched across it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from policy_accel.acceleration.noise_choices import ChosenNoise, ChosenNoiseConfig, cost_mask, logged
from policy_accel.acceleration.noise_statistics import assignment_statistics, cost_dtype, counted_entries
from policy_accel.diffusion.batch import Batch
from policy_accel.diffusion.deferred import Deferred
from policy_accel.diffusion.noise import Noise, NoiseChoice
from policy_accel.errors import check_choice

METRICS = ("dot", "l2")
DEFAULT_METRIC = "l2"
SMALLEST_LENGTH = 1e-15  # a shorter vector has no direction: its square leaves the range of float32


@dataclass(frozen=True)
class NearestNoise:
    """noise [B, *S] in the dtype of its candidates; candidate [B] int64: which of the k was kept."""

    noise: Tensor
    candidate: Tensor


def check_nearest(candidates: int, metric: str) -> None:
    """Raise ValueError unless `nearest_noise` can take these."""
    if not isinstance(candidates, int) or isinstance(candidates, bool) or candidates < 1:
        raise ValueError(f"candidates={candidates!r} must be a whole number of at least 1.")
    check_choice("metric", metric, METRICS)


@torch.no_grad()
def nearest_noise(
    data: Tensor,
    *,
    candidates: int,
    metric: str = DEFAULT_METRIC,
    generator: torch.Generator,
    mask: Tensor | None = None,
) -> NearestNoise:
    """The noise that each row of data [B, *S] keeps of `candidates` independent N(0, I), in the dtype of data.

    metric: `l2` keeps the nearest, as published; `dot` the most aligned, the largest x.z. mask: bool, broadcastable to
    data, False where an entry does not count: there the noise is plain N(0, 1).

    Costs O(B D + B k) time and memory, no communication, no wait for the device. Candidate 0 is
    `torch.randn(data.shape, generator=generator)`, so rows that keep it, all with one candidate, equal it bitwise. It
    is also kept where nothing distinguishes the candidates: no counted entry, or `dot` with a sample of zeros.

    Raises:
        ValueError: `candidates` is not a whole number of at least 1, an unknown metric, a mask that does not fit.
    """
    check_nearest(candidates, metric)
    counted = counted_entries(data, mask)
    noise = torch.randn(data.shape, device=data.device, dtype=data.dtype, generator=generator)
    batch, others, dtype = len(data), candidates - 1, cost_dtype(data)
    if not others:
        return NearestNoise(noise, torch.zeros(batch, dtype=torch.int64, device=data.device))
    z = noise.reshape(batch, -1).to(dtype)
    x = _counted_only(data.reshape(batch, -1).to(dtype), counted)

    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    directed = length > SMALLEST_LENGTH
    per_length = torch.where(directed, 1.0 / length, 0.0)
    first = torch.linalg.vecdot(x, z).unsqueeze(1) * per_length
    along = torch.randn((batch, others), device=data.device, dtype=dtype, generator=generator)
    along = torch.cat([first, along * directed], dim=1)
    if metric == "dot":
        kept = along.argmax(dim=1, keepdim=True)
    else:
        rest = torch.addcmul(_counted_only(z, counted), x, first * per_length, value=-1.0)
        rest_length = torch.linalg.vector_norm(rest, dim=1, keepdim=True)
        # A sample without direction leaves all entries to the rest, one with a single entry none.
        freedom = (x.shape[1] if counted is None else counted.sum(1, keepdim=True)) - directed.to(dtype)
        chi_square = 2.0 * torch._standard_gamma(
            (0.5 * freedom).clamp(min=0.5).expand(batch, others), generator=generator
        )
        across = torch.cat([rest_length, (chi_square * (freedom > 0.0)).sqrt()], dim=1)
        # ||x - z||^2 without ||x||^2, which all candidates of a sample share.
        kept = (along * (2.0 * length - along) - across.square()).argmax(dim=1, keepdim=True)
        stretch = across.gather(1, kept) / rest_length.clamp(min=SMALLEST_LENGTH)
        z.addcmul_(rest, stretch - 1.0)
    # Written as changes to z, which are exactly 0 for candidate 0 and for entries that do not count.
    z.addcmul_(x, (along.gather(1, kept) - first) * per_length)
    return NearestNoise(z.to(noise.dtype).view_as(noise), kept.squeeze(1))


def _counted_only(values: Tensor, counted: Tensor | None) -> Tensor:
    return values if counted is None else values.masked_fill(~counted, 0.0)


@dataclass
class NearestNoiseConfig(ChosenNoiseConfig):
    """Each sample keeps the nearest of its own candidates (Improved Immiscible Diffusion, arXiv 2505.18521)."""

    name: str = "nearest"
    candidates: int = 2
    """Noises drawn for each sample."""
    metric: str = DEFAULT_METRIC
    """l2 (as published), or dot, which leaves the norm of the noise nearly alone."""

    def build(self) -> NoiseChoice:
        """See the base class."""
        check_nearest(self.candidates, self.metric)
        return NearestChoice(self.candidates, self.metric, start_step=self.start_step, start_score=self.start_score)


@dataclass
class NearestChoice(ChosenNoise):
    """Each sample keeps the nearest of its own candidates; candidates and metric as for `nearest_noise`."""

    candidates: int
    metric: str
    last: tuple[Batch, NearestNoise] | None = field(default=None, init=False)

    def choose(self, batch: Batch, draw: Callable[[], Tensor], generator: torch.Generator) -> Deferred[Noise]:
        """Draw `candidates` noises for each sample and keep one."""
        chosen = nearest_noise(
            batch.x0, candidates=self.candidates, metric=self.metric, generator=generator, mask=cost_mask(batch)
        )
        self.last = (batch, chosen)
        return Deferred.of(Noise(chosen.noise))

    def statistics(self) -> dict[str, float]:
        """Figures of the last choice; waits for the device."""
        if self.last is None:
            return {}
        batch, chosen = self.last
        figures = assignment_statistics(batch.x0, chosen.noise, chosen.noise, chosen.candidate, cost_mask(batch))
        return logged(
            {
                "distance_after": float(figures.distance_after),
                "alignment": float(figures.alignment),
                "noise_square": float(figures.noise_square),
                "rows_moved": float((chosen.candidate > 0).float().mean()),
            }
        )
