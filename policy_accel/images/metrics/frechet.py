"""The Fréchet distance of two Gaussians, and the moments that it takes, gathered batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of a set of feature vectors.

    Attributes:
        count: number of vectors, at least 2; None where a file of statistics does not tell.
        mean: [D] float64.
        covariance: [D, D] float64, unbiased (divided by count - 1).
    """

    count: int | None
    mean: Tensor
    covariance: Tensor

    @cached_property
    def factor(self) -> Tensor:
        """F [D, D] with F F^T = covariance; eigenvalues below 0 are rounding and count as 0."""
        values, vectors = torch.linalg.eigh(self.covariance)
        found: Tensor = vectors * values.clamp_min(0).sqrt()
        return found

    def without(self, part: Moments) -> Moments:
        """Of the vectors that are left, 2 at least, when those of `part` are taken out; both counts are known."""
        assert self.count is not None
        assert part.count is not None
        left = self.count - part.count
        apart = part.mean - self.mean
        rest = -apart * part.count / left  # from the mean of all to that of what is left
        scatter = self.covariance * (self.count - 1) - part.covariance * (part.count - 1)
        scatter = scatter - torch.outer(apart, apart) * part.count - torch.outer(rest, rest) * left
        return Moments(left, self.mean + rest, scatter / (left - 1))


class MomentsAccumulator:
    """Mean and covariance of features that come in batches, in float64 on the device where the features are.

    Sums are taken about the mean of the first batch, so that a large common offset costs no digits. Nothing is read
    back to the host.
    """

    def __init__(self) -> None:
        self.count = 0
        self._origin: Tensor | None = None
        self._sum = self._products = torch.empty(0)

    def add(self, features: Tensor) -> None:
        """Count the rows of `features` [B, D] in; any floating type."""
        rows = features.detach().to(torch.float64)
        if not len(rows):
            return
        if self._origin is None:
            self._origin = rows.mean(0)
            self._sum = torch.zeros_like(self._origin)
            self._products = rows.new_zeros(rows.shape[1], rows.shape[1])
        centred = rows - self._origin
        self._sum = self._sum + centred.sum(0)
        self._products.addmm_(centred.T, centred)
        self.count += len(rows)

    def moments(self) -> Moments:
        """Moments of all rows so far, at least 2."""
        assert self._origin is not None
        offset = self._sum / self.count
        scatter = self._products - torch.outer(offset, offset) * self.count
        return Moments(self.count, self._origin + offset, (scatter + scatter.T) / (2 * (self.count - 1)))


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared 2-Wasserstein distance of the Gaussians with these moments (Dowson and Landau 1982):

        |mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr((A^1/2 B A^1/2)^1/2),

    the distance that the FID of Heusel et al. (2017) evaluates on Inception features. Symmetric, at least 0, in squared
    units of the features.

    With any factors A = F F^T and B = G G^T the last trace is the sum of the singular values of F^T G, whose squares
    are the eigenvalues of the symmetric matrix under the root. Taken directly they keep twice the digits, which is
    what rank-deficient covariances (fewer vectors than features) need.
    """
    shift = a.mean - b.mean
    singular = torch.linalg.svdvals(a.factor.T @ b.factor)
    trace = a.covariance.trace() + b.covariance.trace() - 2 * singular.sum()
    return max(0.0, float(shift @ shift + trace))
