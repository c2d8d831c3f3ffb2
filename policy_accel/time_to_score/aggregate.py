"""Costs over training seeds: their middle, their interval, and the ratio to those of the baseline.

Costs are compared as ratios, so that means are of their logarithms (geometric) and intervals are Student's. Runs that
did not reach a target have no cost to average: then there is a median only, in which they cost more than any other.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from policy_accel.time_to_score.confidence import UNDECIDED
from policy_accel.time_to_score.search import NOT_REACHED, REACHED, REACHED_BY


@dataclass(frozen=True)
class Spend:
    """A run's status to a target, and what it cost (None where it was not reached)."""

    status: str
    cost: float | None


@dataclass(frozen=True)
class Middle:
    """A geometric mean or ratio with its interval; None where there is none, and why in words."""

    value: float | None
    interval: tuple[float, float] | None = None
    why: str = ""


def median(spends: Sequence[Spend]) -> float | None:
    """The median cost, where a run that did not reach the target costs infinitely much; None where that is the median,
    or where it hangs on an undecided one."""
    costs = [_bounds(spend) for spend in spends]
    low, high = (statistics.median(part) for part in zip(*costs, strict=True))
    return low if low == high and math.isfinite(low) else None


def _bounds(spend: Spend) -> tuple[float, float]:
    """The least and the most that a run may have cost."""
    if spend.status == REACHED and spend.cost is not None:
        return spend.cost, spend.cost
    if spend.status == NOT_REACHED:
        return math.inf, math.inf
    return 0.0, math.inf if spend.cost is None else spend.cost


def geometric_mean(spends: Sequence[Spend], confidence: float) -> Middle:
    """Over the runs of a method, all of which must have reached the target."""
    why = _incomplete(spends)
    return Middle(None, None, why) if why else _mean_of([_log(spend) for spend in spends], confidence)


def ratio(spends: Sequence[Spend], baseline: Sequence[Spend], confidence: float) -> Middle:
    """Of the costs to those of the baseline, each to that of the same training seed."""
    why = _incomplete(spends) or _incomplete(baseline, "the baseline")
    if why:
        return Middle(None, None, why)
    return _mean_of([_log(a) - _log(b) for a, b in zip(spends, baseline, strict=True)], confidence)


def _log(spend: Spend) -> float:
    assert spend.cost is not None
    return math.log(spend.cost)


def _incomplete(spends: Sequence[Spend], whose: str = "it") -> str:
    """Why there is no mean; empty where there is one."""
    for status, words in (
        (NOT_REACHED, "did not reach the target in"),
        (UNDECIDED, "is undecided in"),
        (REACHED_BY, "has an earlier checkpoint that is undecided in"),
    ):
        if count := sum(spend.status == status for spend in spends):
            return f"{whose} {words} {count} of {len(spends)} runs"
    return ""


def _mean_of(logs: Sequence[float], confidence: float) -> Middle:
    mean, count = float(np.mean(logs)), len(logs)
    if count < 2:
        return Middle(math.exp(mean), None, "one training seed")
    if np.allclose(logs, mean, rtol=0, atol=1e-9):  # all at one checkpoint, of which there are few
        return Middle(math.exp(mean), None, f"the same in all {count} runs")
    half = float(scipy.special.stdtrit(count - 1, (1 + confidence) / 2) * np.std(logs, ddof=1) / math.sqrt(count))
    return Middle(math.exp(mean), (math.exp(mean - half), math.exp(mean + half)))
