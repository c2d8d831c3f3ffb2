"""What was measured of one run, as the result has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from policy_accel.time_to_score.aggregate import Spend
from policy_accel.time_to_score.arms import Arm
from policy_accel.time_to_score.search import Look, Reached, reached

Episode = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """A run.

    Attributes:
        arm: which it is.
        looks: what the search found of its checkpoints.
        costs: of every checkpoint, by updates.
        surrogates: the same; empty where none are measured.
        budgets: updates -> episodes of the checkpoint.
        few_steps: steps of the sampler -> (network evaluations of a chunk, episodes of the last checkpoint).
    """

    arm: Arm
    looks: Sequence[Look]
    costs: dict[int, dict[str, float]]
    surrogates: dict[int, dict[str, float]]
    budgets: dict[int, list[Episode]]
    few_steps: dict[int, tuple[int, list[Episode]]]

    def stands(self, target: float) -> Reached:
        """To a target."""
        return reached(target, self.looks)

    def spend(self, target: float, cost: str) -> Spend:
        """What reaching a target cost."""
        stands = self.stands(target)
        return Spend(stands.status, None if stands.step is None else self.costs[stands.step][cost])

    def to_json(self, targets: Sequence[float]) -> dict[str, Any]:
        """All of it, for the file."""
        arm = self.arm
        return {
            "run": arm.name,
            "task": arm.task,
            "method": arm.method,
            "seed": arm.seed,
            "tuned": arm.tried,
            "targets": {f"{target}": self._target(target) for target in targets},
            "checkpoints": [
                {
                    "updates": look.step,
                    "episodes": look.episodes,
                    "score": look.mean,
                    "interval": list(look.interval),
                    "decisions": {f"{target}": decision for target, decision in look.decisions.items()},
                    **({"surrogates": self.surrogates[look.step]} if look.step in self.surrogates else {}),
                }
                for look in self.looks
            ],
        }

    def _target(self, target: float) -> dict[str, Any]:
        stands = self.stands(target)
        return {"status": stands.status, "costs": None if stands.step is None else self.costs[stands.step]}
