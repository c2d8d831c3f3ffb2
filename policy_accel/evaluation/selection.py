"""Selection bias: what a checkpoint's score owes to having been chosen on the very episodes that score it.

The largest of several noisy scores overstates the policy it belongs to (Cawley and Talbot, 2010, "On Over-fitting in
Model Selection"). Episodes from other seeds, which had no part in the choice, do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from policy_accel.errors import UserError
from policy_accel.evaluation.statistics import bootstrap_difference, bootstrap_interval

EXPLANATION = (
    "Selection bias is the luck in the score of a checkpoint that was chosen for that score: the same policy does not "
    "have it on seeds that had no part in the choice."
)


def missing_seeds(asked: range, chosen: range) -> range:
    """The seeds to run beside those that were asked for, so that both kinds are there: seeds that chose and fresh ones.

    Where the asked ones hold both kinds, none. Where they are all fresh, as many of the chosen ones (or all, if there
    are fewer). Where none is fresh, as many seeds beyond both ranges.

    Args:
        asked: consecutive seeds that are scored anyway, at least 1.
        chosen: consecutive seeds on which checkpoints were compared during training, at least 1.

    Raises:
        UserError: an empty range.
    """
    for name, seeds in (("asked", asked), ("chosen", chosen)):
        if not seeds:
            raise UserError(f"the {name} seeds are an empty range; give at least 1")
    again = sum(seed in chosen for seed in asked)
    if again == 0:
        return chosen[: len(asked)]
    if again == len(asked):
        start = max(asked.stop, chosen.stop)
        return range(start, start + again)
    return range(0)


def selection_bias(rows: Sequence[dict[str, Any]], chosen: range, *, confidence: float) -> dict[str, Any]:
    """Score and success on the seeds that chose a checkpoint against fresh ones, with intervals.

    Args:
        rows: the episodes of an evaluation (seed, score, success), of both kinds, each seed once.
        chosen: the seeds that chose.
        confidence: of the intervals.

    Returns:
        {"chosen": group, "fresh": group, "difference": score of chosen minus fresh, "difference_interval": (low, high)
        by a two-sample bootstrap, "confidence"}; a group is {"start_seed", "episodes", "score", "score_interval",
        "success_rate"}.

    Raises:
        UserError: no episode of a kind.
    """
    groups = {
        "chosen": [row for row in rows if row["seed"] in chosen],
        "fresh": [row for row in rows if row["seed"] not in chosen],
    }
    for name, group in groups.items():
        if not group:
            raise UserError(f"there is no episode of a {name} seed to compare; score at least 1 of each kind")
    scores = {name: [float(row["score"]) for row in group] for name, group in groups.items()}
    summaries = {name: _summary(group, scores[name], confidence) for name, group in groups.items()}
    return {
        **summaries,
        "difference": summaries["chosen"]["score"] - summaries["fresh"]["score"],
        "difference_interval": list(bootstrap_difference(scores["chosen"], scores["fresh"], confidence)),
        "confidence": confidence,
    }


def _summary(group: list[dict[str, Any]], scores: list[float], confidence: float) -> dict[str, Any]:
    return {
        "start_seed": min(row["seed"] for row in group),
        "episodes": len(group),
        "score": sum(scores) / len(scores),
        "score_interval": list(bootstrap_interval(scores, confidence)),
        "success_rate": sum(bool(row["success"]) for row in group) / len(group),
    }
