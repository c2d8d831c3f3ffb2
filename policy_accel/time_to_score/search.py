"""Which targets a run reaches, and at which checkpoint first: no more episodes than it takes to be sure.

Checkpoints are looked at from the earliest to the latest, until each target has been passed at one: a score need not
rise with every update, so that nothing is concluded from one checkpoint about another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from policy_accel.time_to_score.confidence import FAILED, PASSED, UNDECIDED, decide, interval

REACHED, REACHED_BY, NOT_REACHED = "reached", "reached by", "not reached"


@dataclass(frozen=True)
class Rule:
    """When to stop.

    Attributes:
        targets: mean scores.
        range: lowest and highest score of an episode.
        batch: episodes between two looks.
        most: episodes of a checkpoint.
        alpha: error of the decisions about one checkpoint.
        everywhere: whether a checkpoint that nothing hangs on gets a batch of episodes nevertheless.
    """

    targets: Sequence[float]
    range: tuple[float, float]
    batch: int
    most: int
    alpha: float
    everywhere: bool = False

    def unit(self, values: np.ndarray | float) -> np.ndarray:
        """Scores on the scale where the range is [0, 1]; raises ValueError for a score outside."""
        low, high = self.range
        scaled = (np.asarray(values, dtype=np.float64) - low) / (high - low)
        if ((scaled < 0) | (scaled > 1)).any():
            raise ValueError(
                f"an episode's score is {float(np.ravel(values)[np.ravel((scaled < 0) | (scaled > 1))][0]):g}, outside "
                f"of range={list(self.range)}; give the range that scores can have."
            )
        return np.asarray(scaled)


@dataclass(frozen=True)
class Look:
    """What was found of a checkpoint: by how many episodes, their mean, the means that are not excluded (with the
    confidence of one checkpoint), and the decision about each target that was open."""

    step: int
    episodes: int
    mean: float
    interval: tuple[float, float]
    decisions: dict[float, str]


@dataclass(frozen=True)
class Reached:
    """How a run stands to a target.

    Attributes:
        status: "reached" (first at `step`: all checkpoints before failed), "reached by" (passed at `step`, and an
            earlier one is undecided), "not reached" (every checkpoint failed) or "undecided".
        step: updates of the first checkpoint that passed, or None.
    """

    status: str
    step: int | None


def search(steps: Sequence[int], rule: Rule, scores_of: Callable[[int, int], np.ndarray]) -> list[Look]:
    """Look at the checkpoints of a run.

    Args:
        steps: updates of its checkpoints, ascending.
        rule: when to stop.
        scores_of: of (step, count) the scores of the first `count` episodes, [count], played when they are missing.

    Returns:
        What was found of each checkpoint that was looked at, ascending.

    Raises:
        ValueError: a score outside of the range.
    """
    open_targets, looks = list(rule.targets), []
    for step in steps:
        if not open_targets and not rule.everywhere:
            break
        looks.append(_look(step, open_targets, rule, scores_of))
        open_targets = [target for target in open_targets if looks[-1].decisions[target] != PASSED]
    return looks


def _look(step: int, targets: Sequence[float], rule: Rule, scores_of: Callable[[int, int], np.ndarray]) -> Look:
    count, decisions = 0, dict.fromkeys(targets, UNDECIDED)
    while True:
        count = min(count + rule.batch, rule.most)
        values = scores_of(step, count)
        scaled = rule.unit(values)
        for target in (target for target in targets if decisions[target] == UNDECIDED):
            decisions[target] = decide(scaled, float(rule.unit(target)), rule.alpha)
        if count >= rule.most or UNDECIDED not in decisions.values():
            low, high = interval(scaled, rule.alpha)
            width = rule.range[1] - rule.range[0]
            bounds = (rule.range[0] + width * low, rule.range[0] + width * high)
            return Look(step, count, float(values.mean()), bounds, decisions)


def reached(target: float, looks: Sequence[Look]) -> Reached:
    """How a run stands to a target after a search."""
    unsure = False
    for look in looks:
        decision = look.decisions.get(target, FAILED)
        if decision == PASSED:
            return Reached(REACHED_BY if unsure else REACHED, look.step)
        unsure |= decision == UNDECIDED
    return Reached(UNDECIDED if unsure else NOT_REACHED, None)
