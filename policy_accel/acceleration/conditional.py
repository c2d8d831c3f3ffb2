"""Couplings that respect the condition: groups of similar conditions, the C2OT cost, and a regression to subtract.

Noise that is chosen by the sample alone tells the network something about the condition, and noise drawn for sampling
does not (C2OT, arXiv 2503.10636, section 3). Three remedies, from exact to soft: exchange noise only inside groups of
equal or similar conditions, add a cost to exchanges between unlike conditions, or couple noise with what the condition
leaves unexplained. `diagnostics.condition_leak` measures what remains.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policy_accel.diffusion.tables import moved

LARGEST_WEIGHT = 1e8  # of the condition term; the published code stops there too
_ROUNDS = 50
_DISTANCES_AT_ONCE = 2**24
_CONSTANT = 1e-6  # standard deviation below which a column carries nothing


def kmeans_groups(conditions: Tensor, count: int, seed: int) -> Tensor:
    """Group conditions [N, *C] into `count` clusters: labels [N] int64 in 0 .. count - 1, on the device of
    `conditions`.

    Columns are standardised and constant ones dropped; k-means++ seeding, then Lloyd's rounds until no label changes,
    at most 50. Runs on the CPU, so the groups do not depend on the device that trains. With fewer distinct conditions
    than `count` some labels stay unused.

    Raises:
        ValueError: `count` outside 1 .. N, or a condition that is not finite.
    """
    if not 1 <= count <= len(conditions):
        raise ValueError(f"count={count} must lie between 1 and {len(conditions)}, the number of conditions.")
    flat = _finite(conditions, "conditions").cpu()
    mean, scale = _standardization(flat)
    points = ((flat - mean) * scale)[:, scale > 0].float()
    centres = _spread_centres(points, count, torch.Generator().manual_seed(seed))
    labels = _nearest(points, centres)
    for _ in range(_ROUNDS):
        sizes = labels.bincount(minlength=count).unsqueeze(1)
        sums = torch.zeros(centres.shape, dtype=torch.float64)
        sums.scatter_add_(0, labels.unsqueeze(1).expand(points.shape), points.double())
        centres = torch.where(sizes > 0, (sums / sizes.clamp(min=1)).float(), centres)
        previous, labels = labels, _nearest(points, centres)
        if torch.equal(previous, labels):
            break
    return labels.to(conditions.device)


def _spread_centres(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """k-means++: each centre is a point drawn in proportion to its squared distance to the centres before it."""
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    distance = (points - points[chosen[0]]).square().sum(1)
    for _ in range(count - 1):
        reach = distance.double().cumsum(0)
        drawn = torch.rand(1, generator=generator, dtype=torch.float64) * reach[-1]
        chosen.append(int(torch.searchsorted(reach, drawn, right=True).clamp(max=len(points) - 1)))
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(1))
    return points[chosen]


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    offset = centres.square().sum(1)
    pieces = torch.split(points, max(1, _DISTANCES_AT_ONCE // len(centres)))
    return torch.cat([torch.addmm(offset, piece, centres.T, alpha=-2.0).argmin(1) for piece in pieces])


def grouped_permutation(groups: Tensor, run_length: int, generator: torch.Generator) -> Tensor:
    """A random permutation [N] int64 of the samples in which runs of `run_length` places come from one group.

    Every group's samples are shuffled and cut into runs (its last one may be shorter), and the runs are shuffled: a
    batch of consecutive places then holds samples of few groups, many of each. groups [N]: labels, on the device of
    `generator`. Nothing waits for the device.

    Raises:
        ValueError: `run_length` below 1, or groups that are not [N].
    """
    if run_length < 1:
        raise ValueError(f"run_length={run_length} must be at least 1.")
    if groups.ndim != 1:
        raise ValueError(f"groups: the shape is {list(groups.shape)}; give one label for each sample, [N].")
    samples, device = len(groups), groups.device
    shuffled = torch.randperm(samples, generator=generator, device=device)
    together = shuffled[groups[shuffled].argsort(stable=True)]
    labels = groups[together]
    rank = torch.arange(samples, device=device) - torch.searchsorted(labels, labels)
    run = (rank % run_length == 0).cumsum(0) - 1
    place = torch.randperm(samples, generator=generator, device=device)[run]
    return together[place.argsort(stable=True)]


def condition_distance(conditions: Tensor) -> Tensor:
    """How far the conditions of a batch are from one another: [B, B] float32 or float64, zero on the diagonal.

    Integer labels [B]: 0 where equal, else 1. Vectors [B, *C]: the squared Euclidean distance; standardise the columns
    first where their units differ.
    """
    if conditions.ndim == 1 and not conditions.is_floating_point():
        return (conditions.unsqueeze(1) != conditions).float()
    flat = conditions.reshape(len(conditions), -1)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    # Differences, not a matrix product: equal conditions must be exactly 0 apart.
    return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").square()


@dataclass(frozen=True)
class ConditionWeight:
    """The weight w of the condition in C2OT's cost ||x_i - n_j||^2 + w dist(c_i, c_j), where noise j carries the
    condition of sample j (arXiv 2503.10636, section 4; the criterion is that of the authors' code).

    w is set for every batch such that the share of pairs (i, j) that cost sample i no more than the pair (i, i)
    equals `condition_ratio`. The share falls in steps as w grows and each pair's step is known, (cost_ii - cost_ij) /
    dist_ij, so w is an order statistic: exact, where the authors double, bisect and start from the previous batch's w.
    Where no weight up to 1e8 brings the share so low (few distinct labels), 1e8 is taken, which makes classes exact.

    Raises:
        ValueError: `condition_ratio` outside (0, 1), or not above 1/B, the share of the pairs (i, i).
    """

    condition_ratio: float = 0.01

    def __post_init__(self) -> None:
        if not 0.0 < self.condition_ratio < 1.0:
            raise ValueError(
                f"condition_ratio={self.condition_ratio} must lie between 0 and 1; it is a share of pairs."
            )

    def find(self, cost: Tensor, distance: Tensor) -> float:
        """w for cost [B, B] (rows: samples, columns: noises) and distance [B, B], both on the host."""
        pairs = int(self.condition_ratio * cost.numel())
        if pairs <= len(cost):
            raise ValueError(
                f"condition_ratio={self.condition_ratio} leaves all noise in its place in a batch of {len(cost)}, "
                f"where the share of unchanged pairs is {1 / len(cost):.3g}; give more than that, or larger batches."
            )
        slack = cost.diagonal().double().unsqueeze(1) - cost
        step = torch.where(distance > 0, slack / distance.double(), torch.where(slack >= 0, torch.inf, -torch.inf))
        return float(step.flatten().kthvalue(step.numel() - pairs + 1).values.clamp(0.0, LARGEST_WEIGHT))

    def add_to(self, cost: Tensor, distance: Tensor) -> Tensor:
        """cost + w distance, [B, B] float64: the `adjust_cost` of `assign_noise(..., metric="l2sq")`, with the
        `condition_distance` of the batch as its `adjust_with`.
        """
        return cost.double() + self.find(cost, distance) * distance.double()


@dataclass(frozen=True)
class ConditionalMean:
    """A linear estimate of the data given the condition, to couple noise with the rest: assign_noise(x - mean, noise).

    centre [C], weight [C, D], offset [D] float32; shape: *S of the data, D entries.
    """

    centre: Tensor
    weight: Tensor
    offset: Tensor
    shape: tuple[int, ...]

    def predict(self, conditions: Tensor) -> Tensor:
        """The mean [B, *S] float32 for conditions [B, *C]."""
        flat = conditions.reshape(len(conditions), -1).float()
        return torch.addmm(self.offset, flat - self.centre, self.weight).view(-1, *self.shape)

    def to(self, device: torch.device | str) -> ConditionalMean:
        """The same estimate on `device`."""
        return moved(self, device)


@torch.no_grad()
def ridge_mean(conditions: Tensor, data: Tensor, penalty: float = 1e-3) -> ConditionalMean:
    """Ridge regression of data [N, *S] on standardised conditions [N, *C], solved in float64.

    Minimises the mean squared error plus `penalty` times the squared weights (of the standardised conditions; the mean
    is free). Columns that never change get weight 0.

    Raises:
        ValueError: penalty not above 0, different numbers of conditions and samples, or values that are not finite.
    """
    if not penalty > 0.0:
        raise ValueError(f"penalty={penalty} must be positive.")
    if len(conditions) != len(data):
        raise ValueError(f"conditions: there are {len(conditions)} for {len(data)} samples; give one for each.")
    c, x = _finite(conditions, "conditions"), _finite(data, "data")
    centre, scale = _standardization(c)
    c, offset = (c - centre) * scale, x.mean(0)
    gram = c.T @ c / len(c) + penalty * torch.eye(c.shape[1], dtype=c.dtype, device=c.device)
    weight = torch.linalg.solve(gram, c.T @ (x - offset) / len(c))
    scaled = scale.unsqueeze(1) * weight
    return ConditionalMean(centre.float(), scaled.float(), offset.float(), tuple(data.shape[1:]))


def _finite(values: Tensor, name: str) -> Tensor:
    """Rows [N, D] float64; ValueError where a value is not finite."""
    flat = values.reshape(len(values), -1).double()
    if not flat.isfinite().all():
        row = int((~flat.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"{name}: row {row} holds a value that is not finite; repair the data.")
    return flat


def _standardization(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and 1 / standard deviation of each column of [N, D]; 0 for columns that never change."""
    deviation, mean = torch.std_mean(flat, dim=0, correction=0)
    return mean, torch.where(deviation > _CONSTANT, 1.0 / deviation, 0.0)
