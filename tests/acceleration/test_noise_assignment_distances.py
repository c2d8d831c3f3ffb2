"""How far assignment moves the noise towards the data, against the published numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.assignments import assert_is_permutation
from support.tensors import generator, normal
from torch import Tensor

from policy_accel.acceleration.nearest_noise import nearest_noise
from policy_accel.acceleration.noise_assignment import assign_noise, assignment_statistics


def along(data: Tensor, noise: Tensor) -> float:
    x, n = data.flatten(1), noise.flatten(1)
    return float(((x * n).sum(1) / x.norm(dim=1)).mean())


# Data N(0, I): relative drop of the mean distance in percent, x.n / D, shift along the sample in standard deviations.
PUBLISHED = {
    (64, 32): (20.6, 0.38, 2.1),
    (256, 32): (25.5, 0.45, 2.5),
    (1024, 32): (30.1, 0.51, 2.9),
    (64, 112): (10.2, 0.21, 2.2),
    (256, 112): (13.1, 0.25, 2.7),
    (64, 3072): (2.09, 0.039, 2.2),
    (256, 3072): (2.45, 0.048, 2.7),
}


@pytest.mark.parametrize(("batch", "dimension"), PUBLISHED)
def test_how_far_the_noise_moves(batch: int, dimension: int) -> None:
    drop, alignment, shift = PUBLISHED[batch, dimension]
    measured = []
    for seed in range(1 if batch == 1024 else 6):
        data, noise = normal(batch, dimension, seed=seed), normal(batch, dimension, seed=1000 + seed)
        found = assign_noise(data, noise, metric="l2")
        stats = found.statistics
        assert float(stats.noise_square) == pytest.approx(float(noise.square().mean()), rel=1e-6)
        assert float(stats.rows_moved) > 0.9
        fall = 100 * (1 - float(stats.distance_after) / float(stats.distance_before))
        measured.append((fall, float(stats.alignment), along(data, found.noise)))
    values = np.array(measured)
    # The table is one seed; its scatter, from ours over seeds, and the printed digits.
    scatter = values.std(0, ddof=1) if len(values) > 1 else np.array([0.4, 0.005, 0.02])
    digits = np.array([0.05, 0.005, 0.05]) if dimension < 3072 else np.array([0.005, 0.0005, 0.05])
    assert (np.abs(values.mean(0) - (drop, alignment, shift)) < 2.5 * scatter + digits).all(), values.mean(0)
    assert values.mean(0) == pytest.approx((drop, alignment, shift), rel=0.12)


@pytest.mark.parametrize(("block", "drop"), [(256, 25.6), (128, 23.3), (64, 20.6)])
def test_blocks_of_a_large_batch(block: int, drop: float) -> None:
    data, noise = normal(1024, 32), normal(1024, 32, seed=1)
    found = assign_noise(data, noise, block_size=block)
    assert_is_permutation(found, noise)
    stats = assignment_statistics(data, noise, found.noise, found.permutation)
    assert 100 * (1 - float(stats.distance_after) / float(stats.distance_before)) == pytest.approx(drop, abs=0.6)


@pytest.mark.parametrize(
    ("actions", "length", "shifts", "drop"),
    [(2, 4.0, (2.08, 0.80, 0.57), 20), (2, 8.0, (1.83, 0.79, 0.56), 17), (7, 4.0, (2.48, 0.83, 0.57), 12)],
)
def test_smooth_action_chunks(actions: int, length: float, shifts: tuple[float, ...], drop: float) -> None:
    steps = torch.arange(16.0, dtype=torch.float64)
    kernel = torch.exp(-((steps[:, None] - steps) ** 2) / (2 * length**2)) + 1e-6 * torch.eye(16)
    root = torch.linalg.cholesky(kernel).float()
    measured = []
    for seed in range(6):
        data = torch.einsum("hk,bka->bha", root, normal(256, 16, actions, seed=seed))
        noise = normal(256, 16, actions, seed=100 + seed)
        found = assign_noise(data, noise, metric="l2")
        four = nearest_noise(data, candidates=4, metric="l2", generator=generator(200 + seed)).noise
        two = nearest_noise(data, candidates=2, metric="dot", generator=generator(300 + seed)).noise
        stats = assignment_statistics(data, noise, found.noise, found.permutation)
        fall = 100 * (1 - float(stats.distance_after) / float(stats.distance_before))
        measured.append((along(data, found.noise), along(data, four), along(data, two), fall))
    values = np.mean(measured, axis=0)
    assert values[:3] == pytest.approx(shifts, abs=0.1)
    assert values[3] == pytest.approx(drop, abs=1.0)
