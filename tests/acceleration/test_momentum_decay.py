"""The schedules of the momentum: what beta and the learning-rate factor are at each step."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policy_accel.acceleration.momentum_decay import (
    DemonDecay,
    ExponentialDecay,
    LinearDecay,
    beta_products,
    decay_at,
    momentum_decay,
)

PROGRESS = [0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0]
# law, beta_0, beta at the progress above (None: not tabulated), learning-rate factor.
TABLE: list[tuple[str, float, list[float | None], list[float | None]]] = [
    (
        "demon",
        0.9,
        [0.9, 0.87096774, 0.81818182, 0.69230769, 0.47368421, 0.08256881, 0.0],
        [1.0, 0.775, 0.55, 0.325, 0.19, 0.109, 0.1],
    ),
    (
        "demon",
        0.95,
        [0.95, 0.93442623, 0.90476190, 0.82608696, 0.65517241, 0.15966387, 0.0],
        [1.0, 0.7625, 0.525, 0.2875, 0.145, 0.0595, 0.05],
    ),
    (
        "matched_cosine",
        0.9,
        [0.9, 0.88481891, 0.81818182, 0.56859724, None, None, 0.0],
        [1.0, 0.86819805, 0.55, 0.23180195, None, None, 0.1],
    ),
    (
        "matched_cosine",
        0.95,
        [0.95, 0.94191961, 0.90476190, 0.73562358, None, None, 0.0],
        [1.0, 0.86087572, 0.525, 0.18912428, None, None, 0.05],
    ),
    (
        "linear",
        0.9,
        [0.9, 0.8, 0.7, 0.6, 0.54, 0.504, 0.5],
        [1.0, 0.5, 0.33333333, 0.25, 0.21739130, 0.20161290, 0.2],
    ),
]


@pytest.mark.parametrize(("law", "beta_0", "betas", "factors"), TABLE)
def test_table(law: str, beta_0: float, betas: list[float | None], factors: list[float | None]) -> None:
    for progress, beta, factor in zip(PROGRESS, betas, factors, strict=True):
        got = momentum_decay(progress, beta_0, law=law)
        if beta is not None:
            assert got == pytest.approx((beta, factor), abs=1e-8)
        assert momentum_decay(progress, beta_0, law=law, compensate=False) == (got[0], 1.0)


def test_learning_rates_of_a_policy_run() -> None:
    lr = [1e-4 * momentum_decay(progress, 0.95)[1] for progress in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert lr == pytest.approx([1e-4, 7.625e-5, 5.25e-5, 2.875e-5, 5e-6], rel=1e-12)


@pytest.mark.parametrize(
    ("beta_0", "products", "mean", "product_mean"),
    [
        (0.9, [0.66150388, 0.275, 0.04759515], 0.55, 0.366189),
        (0.95, [0.65083446, 0.2625, 0.04210340], 0.525, 0.358755),
    ],
)
def test_multiplied_into_a_cosine(beta_0: float, products: list[float], mean: float, product_mean: float) -> None:
    def cosine(progress: float) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * progress))

    got = [cosine(progress) * momentum_decay(progress, beta_0)[1] for progress in (0.25, 0.5, 0.75)]
    assert got == pytest.approx(products, abs=1e-8)
    middles = [(k + 0.5) / 2000 for k in range(2000)]
    assert np.mean([momentum_decay(tau, beta_0)[1] for tau in middles]) == pytest.approx(mean, abs=1e-9)
    assert np.mean([cosine(tau) * momentum_decay(tau, beta_0)[1] for tau in middles]) == pytest.approx(
        product_mean, abs=6e-7
    )


@pytest.mark.parametrize(
    ("beta_0", "first", "last", "factor"),
    [(0.9, 0.8999099189, 0.0089197225, 0.1009), (0.95, 0.9499524548, 0.0186457311, 0.05095)],
)
def test_first_and_last_step_of_a_thousand(beta_0: float, first: float, last: float, factor: float) -> None:
    assert decay_at(0, 1000, beta_0) == (beta_0, 1.0)
    assert decay_at(1, 1000, beta_0)[0] == pytest.approx(first, abs=1e-10)
    assert decay_at(999, 1000, beta_0) == pytest.approx((last, factor), abs=1e-10)


@pytest.mark.parametrize("beta_0", [0.5, 0.9, 0.95, 0.999])
def test_invariants(beta_0: float) -> None:
    odds = []
    for k in range(101):
        for law in ("demon", "linear", "matched_cosine", "exponential"):
            beta, factor = momentum_decay(k / 100, beta_0, law=law, step=100 * k)
            # The newest gradient keeps its coefficient.
            assert (1.0 - beta) * factor == pytest.approx(1.0 - beta_0, rel=1e-12)
            assert 0.0 <= beta <= beta_0
        beta, factor = momentum_decay(k / 100, beta_0)
        assert factor == pytest.approx(1.0 - beta_0 * k / 100, rel=1e-12)
        odds.append(beta / (1.0 - beta))
    np.testing.assert_allclose(odds, np.linspace(odds[0], 0.0, 101), atol=1e-11 * odds[0])


def test_contribution_of_a_gradient_falls_linearly() -> None:
    odds = [beta / (1 - beta) for beta, _ in (momentum_decay(tau, 0.9) for tau in (0.0, 0.25, 0.5, 0.75, 1.0))]
    assert odds == pytest.approx([9.0, 6.75, 4.5, 2.25, 0.0], abs=1e-12)


def test_progress_is_clamped() -> None:
    """Unclamped, 1.05 gives beta = -0.818 and 1.111 divides by zero."""
    for law in ("demon", "linear", "matched_cosine"):
        for late in (1.05, 1.0 / 0.9, 40.0):
            assert momentum_decay(late, 0.9, law=law) == momentum_decay(1.0, 0.9, law=law)
        assert momentum_decay(-0.5, 0.9, law=law) == momentum_decay(0.0, 0.9, law=law)
    assert decay_at(5000, 1000, 0.9)[0] == 0.0


def test_delayed_start() -> None:
    """1 - k / (N - k0) would jump at k0 and turn negative before the end."""
    assert [decay_at(k, 1000, 0.9, start_step=200)[0] for k in (0, 100, 200)] == [0.9, 0.9, 0.9]
    assert decay_at(600, 1000, 0.9, start_step=200)[0] == pytest.approx(0.81818182, abs=1e-8)
    betas = [decay_at(k, 1000, 0.9, start_step=200)[0] for k in range(1000)]
    jumps = -np.diff(betas)
    assert jumps[:200].max() == 0.0
    assert 0.0 < jumps[200] < 2e-4
    assert jumps[200:].min() > 0.0
    assert betas[-1] > 0.0


def test_beta_min() -> None:
    options = DemonDecay(beta_min=0.5)
    betas = [decay_at(k, 100, 0.95, options)[0] for k in range(101)]
    assert min(betas) == 0.5 == betas[-1]
    assert betas[50] == pytest.approx(0.90476190, abs=1e-8)
    assert decay_at(100, 100, 0.95, options)[1] == pytest.approx(0.1, rel=1e-12)


def test_exponential_counts_steps_from_its_start() -> None:
    options = ExponentialDecay(rate=0.99, floor=0.4)
    assert decay_at(10, 1000, 0.9, options)[0] == pytest.approx(0.9 * 0.99**10, rel=1e-14)
    assert decay_at(30, 1000, 0.9, options, start_step=20)[0] == pytest.approx(0.9 * 0.99**10, rel=1e-14)
    assert decay_at(5, 1000, 0.9, options, start_step=20)[0] == 0.9
    assert decay_at(900, 1000, 0.9, options)[0] == 0.4
    assert momentum_decay(0.0, 0.9, law="exponential", step=1000)[0] == pytest.approx(0.9 * 0.9995**1000, rel=1e-12)


def test_hold_beta_has_the_learning_rates_alone() -> None:
    for k in (0, 300, 999):
        assert decay_at(k, 1000, 0.9, DemonDecay(hold_beta=True)) == (0.9, decay_at(k, 1000, 0.9)[1])


@pytest.mark.parametrize(
    ("k", "beta", "exact", "adam", "factor"),
    [
        (10, 0.89118607, 0.66763112, 0.68400231, 1.02452132),
        (20, 0.87937274, 0.90216855, 0.92353548, 1.02368397),
        (50, 0.82110912, 0.99917301, 0.99994751, 1.00077515),
    ],
)
def test_bias_corrections(k: int, beta: float, exact: float, adam: float, factor: float) -> None:
    """k counts from 1, as Adam's own step does."""
    options = DemonDecay(exact_bias_correction=True)
    got, lr_factor = decay_at(k - 1, 100, 0.9, options)
    assert got == pytest.approx(beta, abs=1e-8)
    assert 1.0 - beta_products(100, 0.9, options)[k - 1] == pytest.approx(exact, abs=1e-8)
    assert 1.0 - got**k == pytest.approx(adam, abs=1e-8)
    assert lr_factor / decay_at(k - 1, 100, 0.9)[1] == pytest.approx(factor, abs=1e-8)


def test_products_reach_beyond_the_run() -> None:
    """A run that overshoots its steps goes on with the last beta."""
    options = LinearDecay(beta_end=0.8, exact_bias_correction=True)
    betas = [decay_at(k, 5, 0.9, options)[0] for k in range(12)]
    np.testing.assert_allclose(beta_products(5, 0.9, options)[:12], np.cumprod(betas), rtol=1e-14)
    assert decay_at(11, 5, 0.9, options)[1] == pytest.approx(
        0.5 * (1.0 - betas[11] ** 12) / (1.0 - np.prod(betas)), rel=1e-12
    )
    assert decay_at(10_000, 5, 0.9, options)[1] == pytest.approx(0.5, rel=1e-12)
