"""Nearest neighbours between two sets of features: precision, recall, density and coverage."""

from __future__ import annotations

import torch
from torch import Tensor

from policy_accel.images.metrics.features import full_precision

ROWS = 2048


def squared_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Squared Euclidean distances [R, C] of `rows` [R, D] and `columns` [C, D], at least 0."""
    products = rows @ columns.T
    return (rows.square().sum(1)[:, None] + columns.square().sum(1)[None, :] - 2 * products).clamp_min_(0)


def neighbour_radii(features: Tensor, neighbours: int) -> Tensor:
    """Squared distance [N] of each row of `features` [N, D] to its k-th nearest other row, k = `neighbours` < N."""
    radii = []
    for first in range(0, len(features), ROWS):
        distances = squared_distances(features[first : first + ROWS], features)
        distances.diagonal(first).fill_(torch.inf)  # where row and column are the same vector
        radii.append(distances.topk(neighbours, dim=1, largest=False).values[:, -1])
    return torch.cat(radii)


def manifold_measures(samples: Tensor, reference: Tensor, neighbours: int) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi et al. 2019, equations 1 to 3) and density and coverage (Naeem et al. 2020,
    equations 3 and 4). A ball includes its surface.

    Only the distances of `ROWS` vectors to all others are in memory at once.

    Args:
        samples: [n, D] features.
        reference: [N, D] features on the same device; the four are comparable between runs at equal n and N only.
        neighbours: k, less than n and N.

    Returns:
        precision: share of samples within the k-neighbour ball of some reference vector. recall: share of reference
        vectors within the k-neighbour ball of some sample. density: reference balls that hold a sample, averaged over
        samples, divided by k; 1 is expected of real data. coverage: share of reference balls that hold a sample.
    """
    with full_precision(samples.device):
        centre = reference.mean(0)  # a common offset would cost the distances digits
        samples, reference = samples - centre, reference - centre
        sample_radii, reference_radii = neighbour_radii(samples, neighbours), neighbour_radii(reference, neighbours)
        inside_real = torch.zeros(len(samples), dtype=torch.int64, device=samples.device)
        inside_fake = torch.zeros(len(reference), dtype=torch.bool, device=samples.device)
        covered = torch.zeros_like(inside_fake)
        for first in range(0, len(samples), ROWS):
            rows = slice(first, first + ROWS)
            distances = squared_distances(samples[rows], reference)
            within = distances <= reference_radii
            inside_real[rows] = within.sum(1)
            covered |= within.any(0)
            inside_fake |= (distances <= sample_radii[rows, None]).any(0)
    return {
        "precision": float((inside_real > 0).double().mean()),
        "recall": float(inside_fake.double().mean()),
        "density": float(inside_real.double().mean() / neighbours),
        "coverage": float(covered.double().mean()),
    }
