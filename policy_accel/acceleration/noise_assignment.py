"""Linear assignment of a batch's noises to its samples (Immiscible Diffusion, arXiv 2406.12303, algorithm 1).

Only the noise rows are permuted, so over the batch the noise stays exactly N(0, I); data, conditions and labels stay in
their rows. Given a condition it does not stay N(0, I) unless rows are exchanged only within equal conditions: `groups`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
import scipy  # scipy.optimize is loaded at its first use: it takes a second, and few runs assign
import torch
from torch import Tensor

from policy_accel.acceleration.noise_statistics import (
    AssignmentStatistics,
    assignment_statistics,
    cost_dtype,
    counted_entries,
)
from policy_accel.diffusion.deferred import Deferred
from policy_accel.diffusion.host_work import HostCall, HostWork, to_device
from policy_accel.errors import check_choice

METRICS = ("dot", "l2", "l2sq")
DEFAULT_METRIC = "dot"
SMALLEST_DEVIATION = 1e-6

AdjustCost = Callable[..., Tensor]


@dataclass(frozen=True)
class Assignment:
    """noise [B, *S]: the pool in its new order, in the dtype of the pool; permutation [B] int64: sample i received row
    permutation[i] of the pool; work: what solved it; data, pool, mask: what was assigned."""

    noise: Tensor
    permutation: Tensor
    work: HostWork = field(repr=False)
    data: Tensor = field(repr=False)
    pool: Tensor = field(repr=False)
    mask: Tensor | None = field(default=None, repr=False)

    @property
    def milliseconds(self) -> float:
        """What the solver took on the host, the last time."""
        return self.work.milliseconds

    @property
    def statistics(self) -> AssignmentStatistics:
        """What the assignment changed, computed when it is asked for, without waiting for the device."""
        return assignment_statistics(self.data, self.pool, self.noise, self.permutation, self.mask)


def assign_noise(
    data: Tensor,
    noise: Tensor,
    *,
    metric: str = DEFAULT_METRIC,
    block_size: int | None = None,
    groups: Tensor | None = None,
    mask: Tensor | None = None,
    standardize: bool = False,
    adjust_cost: AdjustCost | None = None,
    adjust_with: Sequence[Tensor] = (),
) -> Assignment:
    """Permute the rows of noise [B, *S] so that their total cost to the rows of data [B, *S] is smallest.

    The cost is float32, or float64 if data is; autocast is off and no gradient is kept. Waits for the device; see
    `start_assignment` for the form that does not.

    Args:
        data: [B, *S], what noise is assigned to.
        noise: [B, *S], the pool.
        metric: `l2` is the distance ||x - n|| as published; `l2sq` its square; `dot` is -x.n, with the same optimum
            as `l2sq` unless masks differ from sample to sample (else the rest of the square does not depend on the
            permutation), and quicker to solve.
        block_size: cut the batch into consecutive blocks of this many rows, each solved alone; the last may be
            shorter.
        groups: [B] integer labels; noise moves only between samples of equal label (class-wise groups as in AOT,
            arXiv 2403.05069). Blocks are then cut inside the groups. Row j of the pool belongs to the group of
            sample j.
        mask: bool, broadcastable to data, False where an entry does not count; it may differ from sample to sample.
            Masked entries are left out of the cost, but whole noise rows move.
        standardize: cost on (x - mean) / std with the statistics of the batch, masked entries left out, as in
            Immiscible Diffusion Policy (arXiv 2610.09369). Data, and what the caller trains on, are untouched.
        adjust_cost: (cost [B, B], *adjust_with) on the host (row = sample, column = noise) -> cost, called where
            the solver runs, to add to `l2sq` (the condition term of C2OT, arXiv 2503.10636). For the whole batch:
            no blocks or groups.
        adjust_with: tensors that go to the host with the cost, for `adjust_cost`.

    Raises:
        ValueError: data and noise of different shapes, an unknown metric, block_size < 1, groups or mask of the wrong
            shape, an adjusted cost with a metric other than `l2sq`, a cost that is not finite.
    """
    return start_assignment(
        data,
        noise,
        executor=None,
        metric=metric,
        block_size=block_size,
        groups=groups,
        mask=mask,
        standardize=standardize,
        adjust_cost=adjust_cost,
        adjust_with=adjust_with,
    ).result()


def start_assignment(
    data: Tensor,
    noise: Tensor,
    *,
    executor: Executor | None,
    metric: str = DEFAULT_METRIC,
    block_size: int | None = None,
    groups: Tensor | None = None,
    mask: Tensor | None = None,
    standardize: bool = False,
    adjust_cost: AdjustCost | None = None,
    adjust_with: Sequence[Tensor] = (),
) -> Deferred[Assignment]:
    """`assign_noise` for the next batch while this one trains; the arguments are the same.

    The cost is computed at once on the current stream and copied to pinned memory without waiting; a thread of
    `executor` (a ThreadPoolExecutor) waits for the copy and runs SciPy's solver, which releases the interpreter lock.
    Call it before the work of the current step is queued, or the copy queues behind that work. Without an executor
    `result()` solves; it raises the ValueError of a cost that is not finite. Labels on the host let the device compute
    the costs inside the groups only; labels on the device are not waited for, they travel with the cost of the whole
    batch.
    """
    return prepare_assignment(
        data,
        noise,
        work=HostWork(executor),
        metric=metric,
        block_size=block_size,
        groups=groups,
        mask=mask,
        standardize=standardize,
        adjust_cost=adjust_cost,
        adjust_with=adjust_with,
    ).start()


@torch.no_grad()
def prepare_assignment(
    data: Tensor,
    noise: Tensor,
    *,
    work: HostWork,
    metric: str = DEFAULT_METRIC,
    block_size: int | None = None,
    groups: Tensor | None = None,
    mask: Tensor | None = None,
    standardize: bool = False,
    adjust_cost: AdjustCost | None = None,
    adjust_with: Sequence[Tensor] = (),
) -> Deferred[Assignment]:
    """`start_assignment` up to the copy of the cost: work of the device alone, which a CUDA graph can capture.

    `start()` of what it returns begins the solver. The memory of `work` is used again by every assignment with it.
    """
    _check(data, noise, metric, block_size, groups, adjust_cost)
    counted = counted_entries(data, mask)
    labels_follow = groups is not None and _arrives_later(groups)
    # Labels that are still on their way: the groups are cut out of the whole cost when both have arrived.
    problems = _problems(len(data), None, None) if labels_follow else _problems(len(data), block_size, groups)
    with torch.autocast(data.device.type, enabled=False):
        dtype = cost_dtype(data)
        x = data.reshape(len(data), -1).to(dtype)
        n = noise.reshape(len(noise), -1).to(dtype)
        x = x if counted is None else x.masked_fill(~counted, 0.0)
        if standardize:
            x = _standardized(x, counted)
        costs = []
        for rows in problems:
            index = _rows(rows, data)
            cost = _pairwise_cost(x[index], n[index], None if counted is None else counted[index], metric)
            costs.append(cost)
    labels = [groups] if groups is not None and labels_follow else []
    work.send([*costs, *labels, *adjust_with])

    def solve(sent: Sequence[Tensor]) -> Tensor:
        parts, part_costs, rest = problems, list(sent[: len(costs)]), sent[len(costs) :]
        if labels_follow:
            parts = _problems(len(data), block_size, rest[0])
            part_costs = _cut(part_costs[0].squeeze(0), parts)
        if adjust_cost is not None:
            part_costs = [adjust_cost(part_costs[0].squeeze(0), *rest).unsqueeze(0)]
        return torch.from_numpy(_solve(parts, part_costs))

    @torch.no_grad()
    def assigned() -> Assignment:
        permutation = work.received
        return Assignment(noise[permutation], permutation, work, data, noise, mask)

    return Deferred(assigned, HostCall(work, solve))


def check_assignment(metric: str, block_size: int | None) -> None:
    """Raise ValueError unless `assign_noise` can take these."""
    check_choice("metric", metric, METRICS)
    if block_size is not None and (not isinstance(block_size, int) or isinstance(block_size, bool) or block_size < 1):
        raise ValueError(f"block_size={block_size} must be a whole number of at least 1, or none for the whole batch.")


def _check(
    data: Tensor,
    noise: Tensor,
    metric: str,
    block_size: int | None,
    groups: Tensor | None,
    adjust_cost: AdjustCost | None,
) -> None:
    batch = data.shape[0] if data.ndim else 0
    if data.shape != noise.shape or batch == 0:
        raise ValueError(
            f"data: {list(data.shape)} and noise {list(noise.shape)} must have one shape [B, *S], B at least 1."
        )
    check_assignment(metric, block_size)
    if groups is not None and groups.shape != (batch,):
        raise ValueError(f"groups: the shape is {list(groups.shape)}; give one label for each of the {batch} samples.")
    if metric != "l2sq" and adjust_cost is not None:
        raise ValueError(f"metric={metric} does not go with adjust_cost, which adds to the square; give l2sq.")
    if adjust_cost is not None and (block_size is not None or groups is not None):
        raise ValueError("adjust_cost: it needs the cost of the whole batch; leave out block_size and groups.")


def _problems(batch: int, block_size: int | None, groups: Tensor | None) -> list[np.ndarray]:
    """The rows of each problem; problems of equal size are stacked, [problems, size], for one batched matmul."""
    members = [np.arange(batch)]
    if groups is not None:
        labels = groups.cpu().numpy()
        order = np.argsort(labels, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    size = block_size or batch
    by_size: dict[int, list[np.ndarray]] = {}
    for rows in members:
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            by_size.setdefault(len(block), []).append(block)
    return [np.stack(blocks) for blocks in by_size.values()]


def _standardized(x: Tensor, counted: Tensor | None) -> Tensor:
    weight = torch.ones_like(x) if counted is None else counted.to(x.dtype)
    samples = weight.sum(0).clamp(min=1.0)
    centred = (x - (x * weight).sum(0) / samples) * weight
    return centred / (centred.square().sum(0) / samples).sqrt().clamp(min=SMALLEST_DEVIATION)


def _pairwise_cost(x: Tensor, n: Tensor, counted: Tensor | None, metric: str) -> Tensor:
    """Cost [P, M, M] of P problems: samples x [P, M, D], zero where not counted, by noises n [P, M, D]."""
    if metric == "l2" and counted is None:
        return torch.cdist(x, n)
    product = x @ n.mT
    if metric == "dot":
        return -product
    # The counted part of the noise's square depends on the sample's mask.
    noise_square = n.square().sum(-1).unsqueeze(-2) if counted is None else counted.to(n.dtype) @ n.square().mT
    square = (x.square().sum(-1, keepdim=True) + noise_square - 2.0 * product).clamp(min=0.0)
    return square if metric == "l2sq" else square.sqrt()


def _cut(cost: Tensor, problems: list[np.ndarray]) -> list[Tensor]:
    """The costs [P, M, M] of the problems out of that of the whole batch, [B, B] on the host."""
    return [cost[index.unsqueeze(-1), index.unsqueeze(-2)] for index in map(torch.from_numpy, problems)]


def _arrives_later(labels: Tensor) -> bool:
    """Whether reading labels now would wait for the device."""
    return labels.is_cuda


def _rows(rows: np.ndarray, data: Tensor) -> Tensor:
    """Row numbers [P, M] on the device of `data`; consecutive ones, as blocks have, are made there."""
    first, last = int(rows.flat[0]), int(rows.flat[-1]) + 1
    if np.array_equal(rows.ravel(), np.arange(first, last)):
        return torch.arange(first, last, device=data.device).view(rows.shape)
    return to_device(torch.from_numpy(rows), data.device)


@torch.no_grad()
def _solve(problems: list[np.ndarray], costs: list[Tensor]) -> np.ndarray:
    permutation = np.empty(sum(rows.size for rows in problems), dtype=np.int64)
    for stacked_rows, stacked_costs in zip(problems, costs, strict=True):
        for rows, cost in zip(stacked_rows, stacked_costs.numpy(), strict=True):
            if not np.isfinite(cost).all():
                sample, column = (int(rows[i]) for i in np.argwhere(~np.isfinite(cost))[0])
                raise ValueError(
                    f"data or noise: the cost of sample {sample} and noise row {column} is not finite; "
                    "look for nan, infinite or huge values."
                )
            permutation[rows] = rows[scipy.optimize.linear_sum_assignment(cost)[1]]
    return permutation
