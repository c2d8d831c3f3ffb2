"""From measured runs to what the methods of a task cost and score, over training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from policy_accel.comparison.statistics import TwoLevels, holm
from policy_accel.time_to_score.aggregate import geometric_mean, median, ratio
from policy_accel.time_to_score.correlation import Correlation, Point, across, within
from policy_accel.time_to_score.costs import COSTS
from policy_accel.time_to_score.measured import Episode, Measured
from policy_accel.time_to_score.plan import Plan
from policy_accel.time_to_score.search import REACHED


def task_summary(plan: Plan, task: str, runs: Sequence[Measured]) -> dict[str, Any]:
    """All figures of a task.

    Args:
        plan: what was asked for.
        task: its name.
        runs: of the task, of all methods and seeds.
    """
    by_method = {method: [run for run in runs if run.arm.method == method] for method in plan.methods}
    budgets = {step: {m: [run.budgets[step] for run in own] for m, own in by_method.items()} for step in plan.budgets}
    few = {
        steps: {method: [run.few_steps[steps][1] for run in own] for method, own in by_method.items()}
        for steps in plan.few_steps
    }
    evaluations = {steps: {m: own[0].few_steps[steps][0] for m, own in by_method.items()} for steps in plan.few_steps}
    return {
        "targets": {f"{target}": _target(plan, target, by_method) for target in plan.tasks[task].targets},
        "budgets": {str(step): scores_of(plan, episodes) for step, episodes in budgets.items()},
        "few_steps": {
            str(steps): {
                method: {"network_evaluations": evaluations[steps][method], **found}
                for method, found in scores_of(plan, episodes).items()
            }
            for steps, episodes in few.items()
        },
        "surrogates": _surrogates(plan, runs),
    }


def _target(plan: Plan, target: float, by_method: dict[str, list[Measured]]) -> dict[str, Any]:
    found = {}
    for method, runs in by_method.items():
        statuses = [run.stands(target).status for run in runs]
        found[method] = {
            "reached": statuses.count(REACHED),
            "runs": len(runs),
            "statuses": statuses,
            "costs": {cost: _cost(plan, target, cost, by_method, method) for cost in COSTS},
        }
    return found


def _cost(plan: Plan, target: float, cost: str, by_method: dict[str, list[Measured]], method: str) -> dict[str, Any]:
    own = [run.spend(target, cost) for run in by_method[method]]
    first = [run.spend(target, cost) for run in by_method[plan.baseline]]
    mean = geometric_mean(own, plan.scoring.confidence)
    found: dict[str, Any] = {"median": median(own), "mean": mean.value, "interval": mean.interval, "why": mean.why}
    if method != plan.baseline:
        to_baseline = ratio(own, first, plan.scoring.confidence)
        found |= {"ratio": to_baseline.value, "ratio_interval": to_baseline.interval, "ratio_why": to_baseline.why}
    return found


def scores_of(plan: Plan, episodes: dict[str, list[list[Episode]]]) -> dict[str, dict[str, Any]]:
    """Mean scores of the methods on the same episodes, and their differences from the baseline.

    Args:
        plan: what was asked for.
        episodes: method -> run -> episodes, in the order of their seeds.

    Returns:
        method -> score, interval, success_rate, and for others than the baseline difference, difference_interval, p and
        p_holm (over the methods), all over training seeds and episodes, see `comparison.statistics`.
    """
    names = list(episodes)
    scores = [np.array([[row["score"] for row in run] for run in episodes[name]]) for name in names]
    levels = TwoLevels(scores, confidence=plan.scoring.confidence)
    weights = np.eye(len(names))
    base = names.index(plan.baseline)
    found: dict[str, dict[str, Any]] = {}
    differences = {}
    for place, name in enumerate(names):
        mean = levels.estimate(weights[place])
        successes = [bool(row["success"]) for run in episodes[name] for row in run]
        found[name] = {
            "score": mean.value,
            "interval": mean.interval,
            "success_rate": sum(successes) / len(successes),
            "runs": [float(run.mean()) for run in scores[place]],
        }
        if place != base:
            differences[name] = levels.estimate(weights[place] - weights[base])
    corrected = holm([1.0 if value.p is None else value.p for value in differences.values()])
    for (name, value), p_holm in zip(differences.items(), corrected, strict=True):
        found[name] |= {
            "difference": value.value,
            "difference_interval": value.interval,
            "p": value.p,
            "p_holm": None if value.p is None else p_holm,
        }
    return found


def _surrogates(plan: Plan, runs: Sequence[Measured]) -> dict[str, Any]:
    names = dict.fromkeys(name for run in runs for figures in run.surrogates.values() for name in figures)
    found = {}
    for name in names:
        points = [
            Point(run.arm.method, run.arm.seed, look.step, look.mean, run.surrogates[look.step][name])
            for run in runs
            for look in run.looks
            if look.step in run.surrogates
        ]
        confidence = plan.scoring.confidence
        found[name] = {
            "within": _as_json(within(points, confidence)),
            "across": _as_json(across(points, confidence)),
        }
    return found


def _as_json(found: Correlation) -> dict[str, Any]:
    return {**asdict(found), "trusted": found.trusted}
