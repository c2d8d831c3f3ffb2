"""Linear assignment as part of an objective, one batch ahead, and its settings."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from policy_accel.acceleration.conditional import ConditionWeight, condition_distance
from policy_accel.acceleration.noise_assignment import DEFAULT_METRIC, Assignment, check_assignment, prepare_assignment
from policy_accel.acceleration.noise_choices import ChosenNoise, ChosenNoiseConfig, cost_mask, logged
from policy_accel.diffusion.batch import Batch
from policy_accel.diffusion.deferred import Deferred
from policy_accel.diffusion.host_work import HostWork
from policy_accel.diffusion.noise import Noise
from policy_accel.errors import check_choice

CENTERS = ("none", "ridge", "denoiser")


@dataclass
class AssignmentConfig(ChosenNoiseConfig):
    """The batch's noises go to the samples by linear assignment (Immiscible Diffusion, arXiv 2406.12303)."""

    name: str = "assignment"
    metric: str = DEFAULT_METRIC
    """l2 (as published), l2sq (its square), or dot (the optimum of l2sq, and cheaper)."""
    standardize: bool = False
    """Cost on data standardised within the batch (Immiscible Diffusion Policy, arXiv 2610.09369)."""
    center: str = "none"
    """What is taken off the data before the cost: none; ridge (a linear prediction from the condition); denoiser (the
    EMA denoiser's prediction at the noisiest time)."""
    block_size: int | None = None
    """Rows assigned together; null for the whole batch."""

    def build(self) -> AssignedNoise:
        """See the base class."""
        check_assignment(self.metric, self.block_size)
        check_choice("center", self.center, CENTERS)
        return AssignedNoise(
            metric=self.metric,
            standardize=self.standardize,
            block_size=self.block_size,
            center=self.center,
            start_step=self.start_step,
            start_score=self.start_score,
        )


@dataclass
class GroupedAssignmentConfig(AssignmentConfig):
    """Assignment only among samples of equal or similar condition."""

    name: str = "assignment_in_groups"
    groups: int = 256
    """k-means clusters of the normalised observation, unless the task names groups of its own."""
    group_run: int = 16
    """Samples of one group that batches hold side by side."""

    def build(self) -> AssignedNoise:
        """See the base class."""
        for name, value in (("groups", self.groups), ("group_run", self.group_run)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        choice = super().build()
        choice.grouped = True
        return choice


@dataclass
class ConditionalAssignmentConfig(ChosenNoiseConfig):
    """Assignment by C2OT's cost, which adds the distance of the conditions (arXiv 2503.10636)."""

    name: str = "assignment_by_condition"
    condition_ratio: float = ConditionWeight.condition_ratio
    """Share of pairs that may be cheaper than a sample's own."""
    standardize: bool = AssignmentConfig.standardize
    """As for assignment."""
    center: str = "none"
    """As for assignment."""

    def build(self) -> AssignedNoise:
        """See the base class."""
        check_choice("center", self.center, CENTERS)
        return AssignedNoise(
            metric="l2sq",
            standardize=self.standardize,
            condition_weight=ConditionWeight(self.condition_ratio),
            center=self.center,
            start_step=self.start_step,
            start_score=self.start_score,
        )

    def check_run(self, *, steps: int, batch_size: int, evaluated: bool, remedy: str) -> None:
        """See the base class."""
        super().check_run(steps=steps, batch_size=batch_size, evaluated=evaluated, remedy=remedy)
        if self.condition_ratio * batch_size <= 1:
            raise ValueError(
                f"condition_ratio={self.condition_ratio} is no more than the share of a batch's own pairs, 1 / "
                f"batch_size = {1 / batch_size:.3g}, so no noise could move; raise it, or the batch size."
            )


def repeated_condition(batch: Batch) -> Tensor:
    """The condition, flattened, for each row of the batch: [R, C]."""
    assert isinstance(batch.condition, Tensor)
    condition = batch.condition.flatten(1)
    return condition.repeat_interleave(batch.x0.shape[0] // condition.shape[0], dim=0)


@dataclass(kw_only=True)
class AssignedNoise(ChosenNoise):
    """Linear assignment of a batch's noises, solved in a thread of its own while the batch before trains.

    Args:
        metric, block_size, standardize: as for `assign_noise`.
        grouped: only among samples of equal `Batch.groups`.
        condition_weight: of C2OT's cost.
        center: whose prediction `Batch.center` holds: none; ridge (whoever makes the batches gives it); denoiser (the
            training core gives it).
    """

    metric: str
    block_size: int | None = None
    standardize: bool = False
    grouped: bool = False
    condition_weight: ConditionWeight | None = None
    center: str = "none"
    last: Assignment | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.work = HostWork(ThreadPoolExecutor(1, thread_name_prefix="assignment"))
        self.on_host = True
        # The denoiser's prediction for the next batch needs the weights of after this one.
        self.ahead = self.center != "denoiser"

    def goes_by_rows(self, rows: int) -> bool:
        """In whole blocks, where nothing but the block enters their cost."""
        alone = not self.standardize and not self.grouped and self.condition_weight is None and self.center == "none"
        return alone and self.block_size is not None and rows % self.block_size == 0

    def wants_prediction(self, step: int) -> bool:
        """From the start on, where the denoiser's prediction is the center."""
        return self.center == "denoiser" and self.chooses(step)

    def choose(self, batch: Batch, draw: Callable[[], Tensor], generator: torch.Generator) -> Deferred[Noise]:
        """Draw the pool and send the cost to the host; `start()` of what it returns begins the solver."""
        pool = draw()
        if self.grouped and batch.groups is None:
            raise ValueError("batch has no groups, by which its noise is to be assigned; let the task give them.")
        if self.center != "none" and batch.center is None:
            raise ValueError("batch has no center, around which its noise is to be assigned; let the task give it.")
        weight = self.condition_weight
        pending = prepare_assignment(
            batch.x0 if batch.center is None else batch.x0 - batch.center,
            pool,
            groups=batch.groups if self.grouped else None,
            mask=cost_mask(batch),
            adjust_cost=None if weight is None else weight.add_to,
            adjust_with=() if weight is None else (condition_distance(repeated_condition(batch)),),
            work=self.work,
            metric=self.metric,
            block_size=self.block_size,
            standardize=self.standardize,
        )
        return pending.then(self._keep)

    def _keep(self, assigned: Assignment) -> Noise:
        self.last = assigned
        return Noise(assigned.noise, assigned.permutation)

    def statistics(self) -> dict[str, float]:
        """Figures of the last assignment; waits for the device."""
        if self.last is None:
            return {}
        figures = {name: float(value) for name, value in vars(self.last.statistics).items()}
        return logged({**figures, "milliseconds": self.last.milliseconds})
