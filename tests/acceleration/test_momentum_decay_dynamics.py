"""What the decay does to the path of an optimiser: its bias, its stability, its noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import AdamW

from policy_accel.acceleration.momentum_decay import DemonDecay, MomentumDecay, decay_at, momentum_decay


def constant_gradient_run(beta_0: float, steps: int, **options: Any) -> float:
    x = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = AdamW([x], lr=0.01, betas=(beta_0, 0.999), eps=1e-30, weight_decay=0.0)
    decay = MomentumDecay(optimizer, steps, DemonDecay(**options))
    for _ in range(steps):
        x.grad = torch.ones_like(x)
        decay.step()
        optimizer.step()
    return x.item()


@pytest.mark.parametrize(
    ("beta_0", "steps", "published", "exact"),
    [
        (0.9, 10, -0.053710326203, -0.059500000000),
        (0.9, 100, -0.548985662384, -0.554500000000),
        (0.95, 10, -0.049527343125, -0.057250000000),
        (0.95, 100, -0.514022721020, -0.529750000000),
    ],
)
def test_adamw_on_a_constant_gradient(beta_0: float, steps: int, published: float, exact: float) -> None:
    assert constant_gradient_run(beta_0, steps) == pytest.approx(published, abs=1e-11)
    assert constant_gradient_run(beta_0, steps, exact_bias_correction=True) == pytest.approx(exact, abs=1e-11)


@pytest.mark.parametrize(
    ("steps", "beta_0", "adam", "adam_at", "first", "first_at"),
    [
        (50, 0.9, -0.0498, 13, 0.0591, 15),
        (50, 0.95, -0.1008, 21, 0.1428, 29),
        (100, 0.9, -0.0260, 14, 0.0284, 16),
        (100, 0.95, -0.0546, 25, 0.0649, 31),
        (1000, 0.9, -0.00272, 16, 0.00274, 16),
        (1000, 0.95, -0.00590, 31, 0.00601, 32),
        (10000, 0.9, -0.00027, None, 0.00027, None),
        (10000, 0.95, -0.00060, None, 0.00060, None),
    ],
)
def test_worst_errors_of_the_usual_corrections(
    steps: int, beta_0: float, adam: float, adam_at: int | None, first: float, first_at: int | None
) -> None:
    """Constant gradient: m / (1 - beta_k^k) and m / (1 - beta_0^k) against 1."""
    moment, errors = 0.0, []
    for k in range(1, min(steps, 500) + 1):
        beta, _ = decay_at(k - 1, steps, beta_0)
        moment = beta * moment + (1.0 - beta)
        errors.append((moment / (1.0 - beta**k) - 1.0, moment / (1.0 - beta_0**k) - 1.0))
        exact = decay_at(k - 1, steps, beta_0, DemonDecay(exact_bias_correction=True))[1]
        assert moment / (1.0 - beta**k) * exact / decay_at(k - 1, steps, beta_0)[1] == pytest.approx(1.0, abs=1e-14)
    low, high = np.argmin([a for a, _ in errors]), np.argmax([b for _, b in errors])
    digits = 5.1e-5 if steps < 1000 else 5.1e-6
    assert errors[low][0] == pytest.approx(adam, abs=digits)
    assert errors[high][1] == pytest.approx(first, abs=digits)
    if adam_at is not None:
        assert (low + 1, high + 1) == (adam_at, first_at)


def averaged_step(lr: float, beta: float) -> np.ndarray:
    """(x, m) -> (x, m) for m = beta m + (1 - beta) x, x -= lr m."""
    m = np.array([1.0 - beta, beta])
    return np.stack([np.array([1.0, 0.0]) - lr * m, m])


def test_compensation_keeps_the_stability() -> None:
    """Without the factor the limit falls from 38 to 2, with it to 20 only."""
    for progress, limit in ((0.0, 38.0), (0.25, 37.419), (0.5, 36.364), (0.75, 33.846), (1.0, 20.0)):
        beta, factor = momentum_decay(progress, 0.9)
        assert abs(np.linalg.eigvals(averaged_step(0.9999 * limit * factor, beta))).max() < 1.0
        assert abs(np.linalg.eigvals(averaged_step(1.0001 * limit * factor, beta))).max() > 1.0


@pytest.mark.parametrize(
    ("moves", "loss"),
    [
        ("neither", 0.5 / (2.0 - 0.5 / 19.0)),
        ("momentum alone", 0.332008),
        ("learning rate alone", 0.0267127),
        ("both", 0.0267481),
    ],
)
def test_noisy_quadratic(moves: str, loss: float) -> None:
    """Final E[x^2] by recursion of the covariance: the gain is all learning rate.

    The numbers agree with the mean over 20,000 simulated runs within its standard error of 1 %.
    """
    options = DemonDecay(compensate=moves != "momentum alone", hold_beta=moves == "learning rate alone")
    covariance = np.diag([1.0, 0.0])
    for k in range(2000):
        beta, factor = (0.9, 1.0) if moves == "neither" else decay_at(k, 2000, 0.9, options)
        step, kick = averaged_step(0.5 * factor, beta), (1.0 - beta) * np.array([-0.5 * factor, 1.0])
        covariance = step @ covariance @ step.T + np.outer(kick, kick)
    assert covariance[0, 0] == pytest.approx(loss, rel=3e-6)


@pytest.mark.parametrize(("steps", "low", "high"), [(100, 0.03, 0.09), (1000, 0.004, 0.012), (10000, 0.0004, 0.0012)])
def test_an_average_with_the_factor_is_nearly_demon_on_a_heavy_ball(steps: int, low: float, high: float) -> None:
    """On a noisy quadratic the relative RMS difference of the two paths falls as 1 / steps."""
    noise = np.random.default_rng(0).standard_normal(steps)
    average = heavy = 1.0
    m = v = 0.0
    difference = square = 0.0
    for k in range(steps):
        beta, factor = decay_at(k, steps, 0.9)
        m = beta * m + (1.0 - beta) * (average + noise[k])
        average -= 0.5 * factor * m
        v = beta * v + (heavy + noise[k])
        heavy -= 0.5 * 0.1 * v
        difference += (average - heavy) ** 2
        square += heavy**2
    assert low < math.sqrt(difference / square) < high
