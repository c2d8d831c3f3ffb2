"""What a comparison of two arms can see: the smallest difference; the training seeds or episodes that another takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy

from policy_accel.comparison.statistics import Errors, Spread

POWER = 0.8
POINTS, REACH = 121, 6.0
"""Of the distribution of one error when it is added to the other; standard deviations to each side."""
MOST_SEEDS, MOST_EPISODES = 200, 100_000
"""More than these are not asked for."""


@dataclass(frozen=True)
class Design:
    """What varies between two arms of which both have the same number of runs.

    Attributes:
        training: variance that training adds to the mean score of a run, beyond that of its episodes.
        rest: variance of a single score beyond its run and its episode.
        interaction: variance of how much better an episode is for one of the arms.
        arms: whose runs tell the variance of training.
    """

    training: float
    rest: float
    interaction: float
    arms: int = 2

    def errors(self, seeds: int, episodes: int) -> Errors:
        """Standard errors of the difference with so many training seeds and episodes."""
        run = self.training + self.rest / episodes
        return Errors(
            float(np.sqrt(2 * run / seeds)),
            float(np.sqrt(self.interaction / episodes)),
            self.arms * (seeds - 1),
            episodes - 1,
        )


def design_of(spread: Spread, errors: Errors, episodes: int, arms: int) -> Design:
    """The variances that gave the errors of a difference over so many episodes (1 for scores without them)."""
    return Design(max(0.0, spread.run - spread.rest / episodes), spread.rest, errors.episodes**2 * episodes, arms)


def detectable(errors: Errors, level: float, power: float = POWER) -> float:
    """The true difference that a two-sided test finds with probability `power`.

    The test's limit is the level's quantile of the sum of both errors, as in `TwoLevels`; beyond it lies a noncentral t
    with the degrees of freedom of the sum. Zero without error.

    Args:
        errors: of the difference.
        level: of the test, in (0, 1); of several tests after Holm, that of the first step: level / tests.
        power: in (0, 1).
    """
    if errors.total == 0:
        return 0.0
    freedom, limit = errors.effective_freedom, _limit(errors, level)

    def lacks(shift: float) -> float:
        return float(scipy.stats.nct.sf(limit, freedom, shift)) - power

    highest = limit + 10.0
    while lacks(highest) < 0:
        highest *= 2
    return float(scipy.optimize.brentq(lacks, 0.0, highest, xtol=1e-4)) * errors.total


def _limit(errors: Errors, level: float) -> float:
    """The limit of a two-sided test, in units of the total error, as Behrens and Fisher have it: of the sum of two
    Student's t, each with its error and degrees of freedom."""
    if not errors.runs or not errors.episodes:
        return float(scipy.stats.t.isf(level / 2, errors.effective_freedom))
    places = np.linspace(-REACH, REACH, POINTS)  # of the normal distribution, so that the tails have points too
    episodes = errors.episodes * scipy.special.stdtrit(errors.episode_freedom, scipy.special.ndtr(places))
    weights = np.exp(-0.5 * places**2) / np.exp(-0.5 * places**2).sum()

    def beyond(limit: float) -> float:
        return float(weights @ scipy.special.stdtr(errors.freedom, (episodes - limit) / errors.runs)) - level / 2

    furthest = errors.total * float(scipy.stats.t.isf(level / 2, min(errors.freedom, errors.episode_freedom)))
    return float(scipy.optimize.brentq(beyond, 0.0, 4 * furthest)) / errors.total


def least(enough: Callable[[int], bool], most: int) -> int | None:
    """The smallest number from 2 to `most` that is enough, given that more than enough is enough; None if none is."""
    if not enough(most):
        return None
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def seeds_to_see(difference: float, design: Design, episodes: int, level: float) -> int | None:
    """Training seeds of each arm with which a true difference is found with `POWER`; None where 200 are too few."""
    return least(lambda seeds: detectable(design.errors(seeds, episodes), level) <= difference, MOST_SEEDS)


def episodes_to_see(difference: float, design: Design, seeds: int, level: float) -> int | None:
    """Episodes of each run with which it is, with so many training seeds; None where 100,000 are too few."""
    return least(lambda episodes: detectable(design.errors(seeds, episodes), level) <= difference, MOST_EPISODES)
