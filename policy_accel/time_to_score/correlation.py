"""Whether a surrogate puts checkpoints into the order of their scores.

Kendall's tau: of pairs of checkpoints, those in the same order by the score and by the surrogate (lower is better),
less those in the other order, over all pairs whose scores differ; a tie of the surrogate counts nothing.

within     pairs of checkpoints of one run: does the surrogate tell a better from a worse checkpoint of a training?
across     pairs of runs of different methods after the same updates: does it tell a better from a worse method?

Both may differ: every figure gets better while a run trains, which says nothing about methods. The interval is that of
the jackknife over training seeds (Arvesen, 1969, "Jackknifing U-statistics"), each of which is left out in turn with
its runs of all methods, with Student's t for one degree of freedom less than seeds; episodes are the same for all and
are not drawn again, so that it is about these episodes. Where every pair is in order it has no width, which two seeds
may well be by chance: trust takes three.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

TRUSTED = 0.6
"""The interval of tau must lie above it: four of five pairs in the right order."""
SEEDS = 3
"""Training seeds that trust takes at least."""


@dataclass(frozen=True)
class Point:
    """A checkpoint: whose it is, and its score and surrogate."""

    method: str
    seed: int
    step: int
    score: float
    surrogate: float


@dataclass(frozen=True)
class Correlation:
    """tau, its interval (None for one seed, or without pairs), the pairs and the training seeds that they are of."""

    tau: float | None
    interval: tuple[float, float] | None
    pairs: int
    seeds: int

    @property
    def trusted(self) -> bool:
        """Whether the surrogate may stand for the score in such comparisons: the interval lies above `TRUSTED`, and
        there are `SEEDS`."""
        return self.interval is not None and self.interval[0] > TRUSTED and self.seeds >= SEEDS


def within(points: Sequence[Point], confidence: float) -> Correlation:
    """Among the checkpoints of each run."""
    return _correlation(points, lambda a, b: (a.method, a.seed) == (b.method, b.seed), confidence)


def across(points: Sequence[Point], confidence: float) -> Correlation:
    """Among runs of different methods after the same number of updates."""
    return _correlation(points, lambda a, b: a.step == b.step and a.method != b.method, confidence)


def _correlation(points: Sequence[Point], belong: Callable[[Point, Point], bool], confidence: float) -> Correlation:
    pairs = [(a, b) for a, b in itertools.combinations(points, 2) if belong(a, b) and a.score != b.score]
    tau = _tau(pairs)
    seeds = sorted({point.seed for pair in pairs for point in pair})
    parts = [_tau(pair for pair in pairs if seed not in (pair[0].seed, pair[1].seed)) for seed in seeds]
    without = [part for part in parts if part is not None]
    if tau is None or len(seeds) < 2 or len(without) < len(seeds):
        return Correlation(tau, None, len(pairs), len(seeds))
    count = len(seeds)
    pseudo = count * tau - (count - 1) * np.array(without)
    tail = (1 + confidence) / 2
    half = float(scipy.special.stdtrit(count - 1, tail) * pseudo.std(ddof=1) / np.sqrt(count))
    return Correlation(tau, (max(-1.0, tau - half), min(1.0, tau + half)), len(pairs), count)


def _tau(pairs: Iterable[tuple[Point, Point]]) -> float | None:
    signs = [-np.sign(a.score - b.score) * np.sign(a.surrogate - b.surrogate) for a, b in pairs]
    return float(np.mean(signs)) if signs else None
