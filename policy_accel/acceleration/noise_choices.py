"""The ways of choosing noise as parts of an objective: the same calls as in anyone's own loop, one batch ahead."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from policy_accel.acceleration.conditional import ConditionWeight
from policy_accel.acceleration.nearest_noise import NearestNoise, nearest_noise
from policy_accel.acceleration.noise_assignment import Assignment, start_assignment
from policy_accel.acceleration.noise_statistics import assignment_statistics
from policy_accel.diffusion.batch import Batch
from policy_accel.diffusion.laws import Chosen
from policy_accel.errors import UserError, naming


@dataclass
class Start:
    """When a choice of noise begins: from an update on, or after an evaluation with a high enough score."""

    step: int = 0
    score: float | None = None
    scored_from: int | None = None

    def reached(self, step: int) -> bool:
        """Whether update number `step` chooses its noise."""
        if step < self.step:
            return False
        return self.score is None or (self.scored_from is not None and step >= self.scored_from)

    def observe(self, updates: int, score: float) -> None:
        """Take note of a score after `updates` updates; the batch of the next one may be prepared already."""
        if self.score is not None and self.scored_from is None and score >= self.score:
            self.scored_from = updates + 1


def cost_mask(batch: Batch) -> Tensor | None:
    """Entries that take part in the cost: counted by the loss and not given."""
    unknown = None if batch.known is None else ~batch.known
    if batch.counted is None or unknown is None:
        return unknown if batch.counted is None else batch.counted
    return batch.counted & unknown


def repeated_condition(batch: Batch) -> Tensor:
    """The condition, flattened, for each row of the batch: [R, C]."""
    assert isinstance(batch.condition, Tensor)
    condition = batch.condition.flatten(1)
    return condition.repeat_interleave(batch.x0.shape[0] // condition.shape[0], dim=0)


def _logged(figures: dict[str, float]) -> dict[str, float]:
    return {f"noise_{name.removeprefix('noise_')}": value for name, value in figures.items()}


@dataclass
class NearestChoice:
    """Each sample keeps the nearest of its own candidates (Improved Immiscible Diffusion, algorithm 1)."""

    candidates: int
    metric: str
    start: Start = field(default_factory=Start)
    last: tuple[Batch, NearestNoise] | None = field(default=None, init=False)

    def begin(self, batch: Batch, draw: Callable[[], Tensor], generator: torch.Generator, step: int) -> Chosen:
        """Draw `candidates` noises for each sample and keep one."""
        if not self.start.reached(step):
            noise = draw()
            return Chosen(lambda: (noise, None))
        chosen = nearest_noise(
            batch.x0, candidates=self.candidates, metric=self.metric, generator=generator, mask=cost_mask(batch)
        )
        self.last = (batch, chosen)
        return Chosen(lambda: (chosen.noise, None))

    def statistics(self) -> dict[str, float]:
        """Figures of the last choice, for the log; waits for the device."""
        if self.last is None:
            return {}
        batch, chosen = self.last
        figures = assignment_statistics(batch.x0, chosen.noise, chosen.noise, chosen.candidate, cost_mask(batch))
        return _logged(
            {
                "distance_after": float(figures.distance_after),
                "alignment": float(figures.alignment),
                "noise_square": float(figures.noise_square),
                "rows_moved": float((chosen.candidate > 0).float().mean()),
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """Since when noise is chosen."""
        return {"scored_from": self.start.scored_from}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.start.scored_from = state["scored_from"]


class AssignedNoise:
    """Linear assignment of a batch's noises, solved in a thread of its own while the batch before trains.

    Args:
        metric, block_size, standardize: as for `assign_noise`.
        grouped: only among samples of equal `Batch.groups`.
        condition_weight: of C2OT's cost.
        center: whose prediction `Batch.center` holds: none; ridge (whoever makes the batches gives it); denoiser (the
            training core gives it).
        start: when the choice begins.
    """

    def __init__(
        self,
        *,
        metric: str,
        block_size: int | None = None,
        standardize: bool = False,
        grouped: bool = False,
        condition_weight: ConditionWeight | None = None,
        center: str = "none",
        start: Start | None = None,
    ) -> None:
        self.options = {"metric": metric, "block_size": block_size, "standardize": standardize}
        self.grouped = grouped
        self.condition_weight = condition_weight
        self.center = center
        self.start = Start() if start is None else start
        self.solver = ThreadPoolExecutor(1, thread_name_prefix="assignment")
        self.last: Assignment | None = None

    def begin(self, batch: Batch, draw: Callable[[], Tensor], generator: torch.Generator, step: int) -> Chosen:
        """Draw the pool, hand the cost to the solver and return at once."""
        pool = draw()
        if not self.start.reached(step):
            return Chosen(lambda: (pool, None))
        for name, wanted in (("groups", self.grouped), ("center", self.center != "none")):
            if wanted and getattr(batch, name) is None:
                raise UserError(
                    f"The noise is to be assigned by Batch.{name}, and the batch has none; let the task give it."
                )
        weight = self.condition_weight
        adjust_cost = None if weight is None else weight.adjust(repeated_condition(batch))
        pending = start_assignment(
            batch.x0 if batch.center is None else batch.x0 - batch.center,
            pool,
            groups=batch.groups if self.grouped else None,
            mask=cost_mask(batch),
            adjust_cost=adjust_cost,
            executor=self.solver,
            **self.options,  # type: ignore[arg-type]
        )

        def result() -> tuple[Tensor, Tensor | None]:
            with naming("acceleration.noise"):
                assignment = pending.result()
            self.last = assignment
            return assignment.noise, assignment.permutation

        return Chosen(result)

    def statistics(self) -> dict[str, float]:
        """Figures of the last assignment, for the log; waits for the device."""
        if self.last is None:
            return {}
        figures = {name: float(value) for name, value in vars(self.last.statistics).items()}
        return _logged({**figures, "milliseconds": self.last.milliseconds})

    def state_dict(self) -> dict[str, Any]:
        """Since when noise is chosen."""
        return {"scored_from": self.start.scored_from}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.start.scored_from = state["scored_from"]
