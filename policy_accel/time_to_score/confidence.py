"""Whether the mean of bounded scores lies above a target, decided while they come in, at any time.

Betting on a hypothesis (Waudby-Smith and Ramdas, 2024, "Estimating means of bounded random variables by betting",
JRSS B 86, section 4, the hedged capital process): who bets against "the mean is at most m" has, after n scores,

    K+(m) = prod_i (1 + min(l_i, 1 / (2 m)) (x_i - m)),

which is a non-negative supermartingale where the hypothesis is true, so that it ever reaches 2 / alpha with probability
alpha / 2 at most (Ville, 1939): however often, and for whatever reason, one looks. K-(m), against "at least m", has
1 - min(l_i, 1 / (2 (1 - m))) (x_i - m). Both fall, or rise, with m, so that the m with K+ and K- below 2 / alpha are an
interval, which holds the mean at all times and for all targets together with probability 1 - alpha. The stakes are the
paper's predictable plug-in (equation 26), from the scores before x_i:

    l_i = sqrt(2 log(2 / alpha) / (v_{i-1} i log(i + 1))),   v_i = (1/4 + sum_j (x_j - mu_j)^2) / (i + 1),
    mu_i = (1/2 + sum_j x_j) / (i + 1).

The scores must be independent draws of one policy's score (or at least have the same mean given those before), as those
of episodes from different seeds are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PASSED, FAILED, UNDECIDED = "passed", "failed", "undecided"
SHARE = 0.5
"""Of the capital that may be lost on one score, at most."""
HALVINGS = 40


def decide(scores: Sequence[float] | np.ndarray, target: float, alpha: float) -> str:
    """Whether the mean is above `target` ("passed"), below it ("failed"), or neither is sure yet ("undecided").

    Args:
        scores: [n] in [0, 1], all so far, in the order of their seeds.
        target: strictly between 0 and 1.
        alpha: probability of ever being wrong, about any target of these scores, in (0, 1).
    """
    values = np.asarray(scores, dtype=np.float64)
    limit = np.log(2 / alpha)
    stakes = _stakes(values, alpha)
    if _ever(_log_capital(values, stakes, target), limit):
        return PASSED
    return FAILED if _ever(_log_capital(1 - values, stakes, 1 - target), limit) else UNDECIDED


def interval(scores: Sequence[float] | np.ndarray, alpha: float) -> tuple[float, float]:
    """The means that are not excluded after these scores: (low, high), which holds the true one at all times with
    probability 1 - alpha. For arguments see `decide`; (0, 1) of no score."""
    values = np.asarray(scores, dtype=np.float64)
    limit, stakes = np.log(2 / alpha), _stakes(values, alpha)

    def bound(sample: np.ndarray) -> float:
        """The largest m whose hypothesis "the mean is at most m" was ever refuted; 0 if none was."""
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if _ever(_log_capital(sample, stakes, middle), limit):
                low = middle
            else:
                high = middle
        return low

    return (bound(values), 1 - bound(1 - values)) if len(values) else (0.0, 1.0)


def _stakes(values: np.ndarray, alpha: float) -> np.ndarray:
    """l_1 .. l_n: each from the values before its own. They are the same of 1 - values."""
    count = np.arange(1, len(values) + 1)
    means = (0.5 + np.cumsum(values)) / (count + 1)
    variances = (0.25 + np.cumsum((values - means) ** 2)) / (count + 1)
    before = np.concatenate(([0.25], variances[:-1]))
    return np.asarray(np.sqrt(2 * np.log(2 / alpha) / (before * count * np.log(count + 1))))


def _log_capital(values: np.ndarray, stakes: np.ndarray, target: float) -> np.ndarray:
    """log K+(target) after each value, [n]."""
    return np.cumsum(np.log1p(np.minimum(stakes, SHARE / target) * (values - target)))


def _ever(log_capital: np.ndarray, limit: float) -> bool:
    return bool((log_capital >= limit).any())
