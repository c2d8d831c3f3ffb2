"""Noise that the stochastic sampler of Karras et al. 2022 adds before its steps (algorithm 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

LARGEST = math.sqrt(2.0) - 1.0
"""By which sigma grows at most: the variance of a state at most doubles."""


@dataclass(frozen=True)
class Churn:
    """How far a state is taken back before a step, from sigma up to (1 + rate) sigma, and with how much noise.

    Args:
        rate: gamma of the paper; 0 adds nothing.
        lowest, highest: the sigmas S_min and S_max between which it is done, both included.
        noise: S_noise, the deviation of the noise that is added, of which a little over 1 makes up for detail that
            networks take away.

    Raises:
        ValueError: a rate outside [0, sqrt(2) - 1], bounds that are no interval, or noise that is not positive.
    """

    rate: float = 0.0
    lowest: float = 0.0
    highest: float = math.inf
    noise: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate <= LARGEST:
            raise ValueError(f"rate={self.rate} must lie in [0, {LARGEST:.4f}].")
        if not 0.0 <= self.lowest <= self.highest:
            raise ValueError(f"lowest={self.lowest} must lie between 0 and highest={self.highest}.")
        if not 0.0 < self.noise < math.inf:
            raise ValueError(f"noise={self.noise} must be positive and finite.")

    @classmethod
    def of(cls, amount: float, steps: int, **others: float) -> Churn:
        """The churn S_churn=`amount` of a sample in `steps` steps: each raises sigma by amount / steps, at most by
        sqrt(2) - 1. Raises ValueError for a negative amount too."""
        if not amount >= 0.0:
            raise ValueError(f"amount={amount} must not be negative.")
        return cls(min(amount / steps, LARGEST), **others)

    def raised(self, sigma: float) -> float | None:
        """What a step from `sigma` begins at instead, None for sigma itself."""
        return (1.0 + self.rate) * sigma if self.rate and self.lowest <= sigma <= self.highest else None


NO_CHURN = Churn()
