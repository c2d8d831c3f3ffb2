"""Means and differences over training seeds and episodes: a two-level bootstrap, p-values, what could be seen.

Scores are crossed: every run is scored on the same evaluation seeds. Of arm a, training seed s and episode e

    x[a, s, e] = mean[a] + run[a, s] + episode[e] + (arm x episode)[a, e] + rest[a, s, e],

so that a mean has two errors which do not average out together: that of few runs and that of many episodes. Each has
its level in the bootstrap (Davison and Hinkley, 1997, "Bootstrap Methods and their Application", section 3.8; Owen,
2007, "The pigeonhole bootstrap", for crossed data):

- Episodes are resampled, the same ones for all arms and runs, which pairs the arms.
- Two to five training seeds cannot be: one resample in nine of three runs has one run three times, and intervals from
  such resamples are far too narrow (Hesterberg, 2015, "What Teachers Should Know About the Bootstrap", section 4).
  Their level is drawn from Student's t, with the variance of the runs and its degrees of freedom.

The variance of run means holds that of the rest, and so does that of resampled episodes; what is counted twice is taken
out of the episodes' deviations (the estimate is that of a two-way analysis of variance). The sum of the two levels is
the solution of Behrens and Fisher, which errs on the wide side.

The variance among runs is that of the arm itself, and of a difference the common one of its two arms, as in the t test
of two samples of equal size, which is little hurt where they differ. `pooled` takes one variance for all arms: six arms
with three seeds then have 12 degrees of freedom instead of 4, and see smaller differences; where one arm is less steady
than the others, false findings become two to three times as frequent (benchmarks/compare_coverage.py).

Arms are not paired by training seed: equal numbers share the first weights and the order of data, but after thousands
of updates that makes scores hardly alike, and pairing costs half of the degrees of freedom. Where they are alike,
intervals are too wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # scipy.special and scipy.stats are loaded at their first use

from policy_accel.evaluation.statistics import CONFIDENCE, RESAMPLES

CHUNK = 1_000_000
"""Episodes that are drawn at a time, so that memory stays small."""
DIGITS = 12
"""Means of equal scores of two and of three runs differ in the last bits, which is no difference."""


@dataclass(frozen=True)
class Spread:
    """What varies, pooled over some arms.

    Attributes:
        run: variance among the mean scores of the runs of an arm; 0 without degrees of freedom.
        rest: variance of a single score beyond its run and its episode, which is part of `run` and of the episodes'.
        freedom: degrees of freedom of `run`: runs less arms.
    """

    run: float
    rest: float
    freedom: int


@dataclass(frozen=True)
class Errors:
    """Standard errors of a mean or a difference, from the two levels.

    Attributes:
        runs: of having few training seeds.
        episodes: of having few episodes.
        freedom: degrees of freedom of `runs`.
        episode_freedom: those of `episodes`.
    """

    runs: float
    episodes: float
    freedom: int
    episode_freedom: int

    @property
    def total(self) -> float:
        """Standard error of both."""
        return float(np.hypot(self.runs, self.episodes))

    @property
    def effective_freedom(self) -> float:
        """Degrees of freedom of `total` (Satterthwaite, 1946); infinite without error."""
        parts = ((self.runs, self.freedom), (self.episodes, self.episode_freedom))
        below = sum(error**4 / freedom for error, freedom in parts if error > 0)
        return self.total**4 / below if below else np.inf


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of means; the interval and p are None where nothing tells how far chance reaches.

    Attributes:
        value: the estimate.
        interval: low and high.
        p: two-sided, of the value being nought.
        errors: standard errors.
    """

    value: float
    interval: tuple[float, float] | None
    p: float | None
    errors: Errors


def spread_of(arms: Sequence[np.ndarray]) -> Spread:
    """The pooled variances of arms, each [S, E] scores; S may differ between arms, E may be 1."""
    freedom = sum(len(arm) - 1 for arm in arms)
    episodes = arms[0].shape[1]
    if not freedom:
        return Spread(0.0, 0.0, 0)
    runs = sum(float(((arm.mean(axis=1) - arm.mean()) ** 2).sum()) for arm in arms)
    rest = sum(
        float(((arm - arm.mean(axis=1, keepdims=True) - arm.mean(axis=0) + arm.mean()) ** 2).sum()) for arm in arms
    )
    return Spread(runs / freedom, rest / (freedom * max(1, episodes - 1)), freedom)


class TwoLevels:
    """The bootstrap of arms.

    Args:
        arms: of each arm the scores [S, E] of S runs on the same E evaluation seeds; E is 1 for scores without
            episodes.
        confidence: of intervals, in (0, 1).
        pooled: whether all arms are taken to vary alike from training seed to training seed.
        resamples: how many.
        seed: of the resamples.
    """

    def __init__(
        self,
        arms: Sequence[np.ndarray],
        *,
        confidence: float = CONFIDENCE,
        pooled: bool = False,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        self.arms, self.confidence, self.pooled = arms, confidence, pooled
        self.runs = np.array([len(arm) for arm in arms])
        self.by_episode = np.stack([arm.mean(axis=0) for arm in arms]).round(DIGITS)  # [A, E]
        self.episodes = self.by_episode.shape[1]
        generator = np.random.default_rng(seed)
        self._places = (generator.permutation(resamples) + 0.5) / resamples
        self._means = self._resampled_means(generator, resamples)

    def spread(self, weights: np.ndarray) -> Spread:
        """What varies in the arms that have a weight [A], or in all when they are pooled."""
        return spread_of([arm for arm, weight in zip(self.arms, weights, strict=True) if self.pooled or weight])

    def _student(self, freedom: int) -> np.ndarray:
        """[B] quantiles of Student's t at even probabilities, in random order; nought without degrees of freedom."""
        return np.asarray(scipy.special.stdtrit(freedom, self._places)) if freedom else np.zeros(len(self._places))

    def _resampled_means(self, generator: np.random.Generator, resamples: int) -> np.ndarray:
        """[B, A] deviations of the mean over resampled episodes, of unit size: as wide as Student's t for E - 1
        degrees of freedom."""
        count = self.episodes
        if count < 2:
            return np.zeros((resamples, len(self.by_episode)))
        centred = (self.by_episode - self.by_episode.mean(axis=1, keepdims=True)).T
        parts = []
        for start in range(0, resamples, max(1, CHUNK // count)):
            size = min(max(1, CHUNK // count), resamples - start)
            drawn = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
            times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
            parts.append(times @ centred / count)
        small = np.sqrt(count / generator.chisquare(count - 1, size=(resamples, 1)))
        return np.asarray(np.concatenate(parts) * small)

    def errors(self, weights: np.ndarray) -> Errors:
        """Standard errors of the sum of the arms' means, weighted [A]."""
        few = float((weights**2 / self.runs).sum())
        spread = self.spread(weights)
        variance = float(np.var(weights @ self.by_episode, ddof=1)) if self.episodes > 1 else 0.0
        own = max(0.0, variance - spread.rest * few)
        return Errors(
            float(np.sqrt(spread.run * few)), float(np.sqrt(own / self.episodes)), spread.freedom, self.episodes - 1
        )

    def estimate(self, weights: np.ndarray) -> Estimate:
        """The sum of the arms' means, weighted [A]: (0, 1, 0) for the mean of the second, (-1, 1, 0) a difference."""
        value, errors = float((weights @ self.by_episode).mean()), self.errors(weights)
        if not errors.freedom and self.episodes < 2:
            return Estimate(value, None, None, errors)
        plain = float(np.std(weights @ self.by_episode, ddof=1) / np.sqrt(self.episodes)) if self.episodes > 1 else 0.0
        share = errors.episodes / plain if plain > 0 else 0.0
        episodes = value + share * (self._means @ weights)
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(episodes + errors.runs * self._student(errors.freedom), [tail, 1 - tail])
        p = min(1.0, 2 * min(_below_zero(episodes, errors), _below_zero(-episodes, errors)))
        return Estimate(value, (float(low), float(high)), p, errors)


def _below_zero(episodes: np.ndarray, errors: Errors) -> float:
    """The probability that the bootstrap gives the difference another sign, given its episodes' level [B]: that of
    Student's t, averaged; without the level of runs a count, which is at least one."""
    if errors.runs > 0:
        return float(scipy.special.stdtr(errors.freedom, -episodes / errors.runs).mean())
    return (int((episodes <= 0).sum()) + 1) / (len(episodes) + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of a family, corrected so that the chance of any false finding stays below the level (Holm, 1979)."""
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate([(len(order) - rank) * p_values[place] for rank, place in enumerate(order)])
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1.0, stepped)
    return [float(p) for p in corrected]
