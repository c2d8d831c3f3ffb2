"""The targets of the longer steps of shortcut models."""

from __future__ import annotations

from dataclasses import replace

import torch

from policy_accel.diffusion import Batch, Noised, Objective
from policy_accel.diffusion.processes import per_sample
from policy_accel.diffusion.shortcut import SELF_CONSISTENT_EVERY, ShortcutProcess, step_halves, step_size
from policy_accel.errors import UserError
from policy_accel.models.denoiser import Denoiser
from policy_accel.training.lesson import Lesson

BOUND = 4.0
"""Of states and velocities, as in the released code (kvfrans/shortcut-models)."""


class SelfConsistency(Lesson):
    """A step is as long as its two halves, which the average takes: Frans et al. 2025 (arXiv 2410.12557), equations 4
    and 5, with the second half where the first one leads.

    Args:
        data_scale: factor on the data while they are diffused.
    """

    asks_weights = True
    evaluations = 2 / SELF_CONSISTENT_EVERY

    def __init__(self, data_scale: float = 1.0) -> None:
        self.bound = BOUND * data_scale

    def check_rows(self, rows: int) -> None:
        """See the base class: every fourth is taught, see `StepsOfAllSizes`."""
        if rows % SELF_CONSISTENT_EVERY:
            raise UserError(
                f"diffusion.family=shortcut makes the targets of every {SELF_CONSISTENT_EVERY}th row, and the network "
                f"is given {rows} rows at a time; choose training.batch_size as a multiple of {SELF_CONSISTENT_EVERY} "
                "times the processes times training.accumulate."
            )

    def __call__(self, batch: Batch, noised: Noised, model: Denoiser, average: Denoiser) -> Noised:
        """See the base class."""
        rows = slice(None, None, SELF_CONSISTENT_EVERY)
        x, told, batch = noised.x_t[rows], noised.t[rows], batch.rows(rows)
        condition = average.encode(batch.condition)
        first, second = step_halves(told)
        v_first = average(x, first, condition).to(x.dtype)
        half_way = (x - per_sample(step_size(told) / 2, x) * v_first).clamp(-self.bound, self.bound)
        if batch.known is not None:
            half_way = torch.where(batch.known, x, half_way)
        v_second = average(half_way, second, condition).to(x.dtype)
        target = noised.target.clone()
        target[rows] = (0.5 * (v_first + v_second)).clamp(-self.bound, self.bound)
        return replace(noised, target=target)


def lesson_of(objective: Objective) -> Lesson | None:
    """The lesson that an objective needs: of shortcut models; None for the others."""
    return SelfConsistency(objective.data_scale) if isinstance(objective.process, ShortcutProcess) else None
