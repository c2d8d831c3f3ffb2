"""Mean and covariance of features that are all at hand."""

from __future__ import annotations

from torch import Tensor

from policy_accel.images.metrics.frechet import Moments, MomentsAccumulator


def moments_of(features: Tensor) -> Moments:
    """Moments of `features` [N, D], N at least 2."""
    accumulator = MomentsAccumulator()
    accumulator.add(features)
    return accumulator.moments()
