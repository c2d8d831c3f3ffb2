from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR

from policy_accel.acceleration.momentum_decay import (
    MOMENTUM_DECAY_CONFIGS,
    DecaySchedule,
    MomentumDecay,
    beta_products,
    decay_at,
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


def decay_schedule(law: str = "demon", **settings: Any) -> DecaySchedule:
    schedule = next(config for config in MOMENTUM_DECAY_CONFIGS if config.name == law)(**settings)
    assert isinstance(schedule, DecaySchedule)
    return schedule


def momentum_decay(
    progress: float, beta_0: float, *, law: str = "demon", step: int = 0, **settings: Any
) -> tuple[float, float]:
    return decay_schedule(law, **settings).at(progress, beta_0, step)


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
    options = decay_schedule(beta_min=0.5)
    betas = [decay_at(k, 100, 0.95, options)[0] for k in range(101)]
    assert min(betas) == 0.5 == betas[-1]
    assert betas[50] == pytest.approx(0.90476190, abs=1e-8)
    assert decay_at(100, 100, 0.95, options)[1] == pytest.approx(0.1, rel=1e-12)


def test_exponential_counts_steps_from_its_start() -> None:
    options = decay_schedule(law="exponential", rate=0.99, floor=0.4)
    assert decay_at(10, 1000, 0.9, options)[0] == pytest.approx(0.9 * 0.99**10, rel=1e-14)
    assert decay_at(30, 1000, 0.9, options, start_step=20)[0] == pytest.approx(0.9 * 0.99**10, rel=1e-14)
    assert decay_at(5, 1000, 0.9, options, start_step=20)[0] == 0.9
    assert decay_at(900, 1000, 0.9, options)[0] == 0.4
    assert momentum_decay(0.0, 0.9, law="exponential", step=1000)[0] == pytest.approx(0.9 * 0.9995**1000, rel=1e-12)


def test_hold_beta_has_the_learning_rates_alone() -> None:
    for k in (0, 300, 999):
        assert decay_at(k, 1000, 0.9, decay_schedule(hold_beta=True)) == (0.9, decay_at(k, 1000, 0.9)[1])


def constant_gradient_run(beta_0: float, steps: int, **options: Any) -> float:
    x = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = AdamW([x], lr=0.01, betas=(beta_0, 0.999), eps=1e-30, weight_decay=0.0)
    decay = MomentumDecay(optimizer, steps, decay_schedule(**options))
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
    ("k", "beta", "exact", "adam", "factor"),
    [
        (10, 0.89118607, 0.66763112, 0.68400231, 1.02452132),
        (20, 0.87937274, 0.90216855, 0.92353548, 1.02368397),
        (50, 0.82110912, 0.99917301, 0.99994751, 1.00077515),
    ],
)
def test_bias_corrections(k: int, beta: float, exact: float, adam: float, factor: float) -> None:
    """k counts from 1, as Adam's own step does."""
    options = decay_schedule(exact_bias_correction=True)
    got, lr_factor = decay_at(k - 1, 100, 0.9, options)
    assert got == pytest.approx(beta, abs=1e-8)
    assert 1.0 - beta_products(100, 0.9, options)[k - 1] == pytest.approx(exact, abs=1e-8)
    assert 1.0 - got**k == pytest.approx(adam, abs=1e-8)
    assert lr_factor / decay_at(k - 1, 100, 0.9)[1] == pytest.approx(factor, abs=1e-8)


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
        exact = decay_at(k - 1, steps, beta_0, decay_schedule(exact_bias_correction=True))[1]
        assert moment / (1.0 - beta**k) * exact / decay_at(k - 1, steps, beta_0)[1] == pytest.approx(1.0, abs=1e-14)
    low, high = np.argmin([a for a, _ in errors]), np.argmax([b for _, b in errors])
    digits = 5.1e-5 if steps < 1000 else 5.1e-6
    assert errors[low][0] == pytest.approx(adam, abs=digits)
    assert errors[high][1] == pytest.approx(first, abs=digits)
    if adam_at is not None:
        assert (low + 1, high + 1) == (adam_at, first_at)


def test_products_reach_beyond_the_run() -> None:
    """A run that overshoots its steps goes on with the last beta."""
    options = decay_schedule(law="linear", beta_end=0.8, exact_bias_correction=True)
    betas = [decay_at(k, 5, 0.9, options)[0] for k in range(12)]
    np.testing.assert_allclose(beta_products(5, 0.9, options)[:12], np.cumprod(betas), rtol=1e-14)
    assert decay_at(11, 5, 0.9, options)[1] == pytest.approx(
        0.5 * (1.0 - betas[11] ** 12) / (1.0 - np.prod(betas)), rel=1e-12
    )
    assert decay_at(10_000, 5, 0.9, options)[1] == pytest.approx(0.5, rel=1e-12)


def averaged_step(lr: float, beta: float, curvature: float = 1.0) -> np.ndarray:
    """(x, m) -> (x, m) for m = beta m + (1 - beta) h x, x -= lr m."""
    m = np.array([(1.0 - beta) * curvature, beta])
    return np.stack([np.array([1.0, 0.0]) - lr * m, m])


def stationary_variance(lr: float, beta: float) -> float:
    step, kick = averaged_step(lr, beta), (1.0 - beta) * np.array([-lr, 1.0])
    covariance = np.linalg.solve(np.eye(4) - np.kron(step, step), np.outer(kick, kick).ravel())
    return float(covariance[0])


@pytest.mark.parametrize(("beta", "limit"), [(0.0, 2.0), (0.5, 6.0), (0.9, 38.0), (0.95, 78.0)])
def test_stability_limit(beta: float, limit: float) -> None:
    for factor, stable in ((0.999, True), (1.001, False)):
        assert (abs(np.linalg.eigvals(averaged_step(factor * limit, beta))).max() < 1.0) is np.bool_(stable)


def test_stationary_variance() -> None:
    for beta, variance in ((0.0, 1.0), (0.5, 0.6), (0.9, 0.51351351)):
        assert stationary_variance(1.0, beta) == pytest.approx(variance, abs=1e-8)


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
    options = decay_schedule(compensate=moves != "momentum alone", hold_beta=moves == "learning rate alone")
    covariance = np.diag([1.0, 0.0])
    for k in range(2000):
        beta, factor = (0.9, 1.0) if moves == "neither" else decay_at(k, 2000, 0.9, options)
        step, kick = averaged_step(0.5 * factor, beta), (1.0 - beta) * np.array([-0.5 * factor, 1.0])
        covariance = step @ covariance @ step.T + np.outer(kick, kick)
    assert covariance[0, 0] == pytest.approx(loss, rel=3e-6)


def problem() -> tuple[nn.Module, Callable[[int], None]]:
    """A small model with a deterministic gradient for each step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))

    def backward(step: int) -> None:
        model.zero_grad()
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        (model(x) - x[:, :2].sin()).square().mean().backward()

    return model, backward


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def warmup_cosine(step: int) -> float:
    return step / 5 if step < 5 else 0.5 * (1.0 + math.cos(math.pi * (step - 5) / 35))


@pytest.mark.parametrize("compose", ["multiply", "replace"])
@pytest.mark.parametrize("scheduler_first", [True, False])
def test_with_lambda_lr(compose: str, scheduler_first: bool) -> None:
    """The learning rate at every optimiser step, bit for bit, and the scheduler's own values left alone."""
    model, backward = problem()
    optimizer = AdamW(model.parameters(), lr=0.01, betas=(0.95, 0.999))
    if scheduler_first:
        scheduler = LambdaLR(optimizer, warmup_cosine)
    decay = MomentumDecay(optimizer, 40, start_step=5, compose=compose)
    if not scheduler_first:
        scheduler = LambdaLR(optimizer, warmup_cosine)
    group = optimizer.param_groups[0]
    for step in range(45):
        backward(step)
        decay.step()
        beta, factor = decay_at(step, 40, 0.95, start_step=5)
        base = 0.01 if compose == "replace" and step >= 5 else 0.01 * warmup_cosine(step)
        assert (group["lr"], group["betas"]) == (base * factor, (beta, 0.999))
        optimizer.step()
        assert group["lr"] == 0.01 * warmup_cosine(step)
        scheduler.step()


@pytest.mark.parametrize(
    "make", [lambda o: CosineAnnealingLR(o, 40), lambda o: ExponentialLR(o, 0.9), lambda o: LambdaLR(o, warmup_cosine)]
)
def test_schedulers_that_build_on_the_present_value_do_not_compound(make: Callable[[Optimizer], Any]) -> None:
    models = [problem() for _ in range(2)]
    optimizers = [AdamW(model.parameters(), lr=0.01) for model, _ in models]
    schedulers = [make(optimizer) for optimizer in optimizers]
    decay = MomentumDecay(optimizers[1], 40)
    for step in range(40):
        for (_, backward), optimizer in zip(models, optimizers, strict=True):
            backward(step)
            if optimizer is optimizers[1]:
                decay.step()
                factor = decay_at(step, 40, 0.9)[1]
                assert optimizer.param_groups[0]["lr"] == optimizers[0].param_groups[0]["lr"] * factor
            optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def test_constant_learning_rate_and_skipped_steps() -> None:
    """Nothing compounds when nobody else sets lr, nor when the optimiser's step is left out (a gradient scaler)."""
    model, backward = problem()
    optimizer = AdamW(model.parameters(), lr=0.01)
    decay = MomentumDecay(optimizer, 20)
    for step in range(20):
        backward(step)
        decay.step()
        assert optimizer.param_groups[0]["lr"] == 0.01 * decay_at(step, 20, 0.9)[1]
        if step % 3:
            optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.02
    decay.step()
    assert optimizer.param_groups[0]["lr"] == 0.02 * decay_at(20, 20, 0.9)[1]


def test_a_loop_that_sets_the_groups_itself_is_the_same() -> None:
    models = [problem() for _ in range(2)]
    optimizers = [AdamW(model.parameters(), lr=0.01, betas=(0.95, 0.999)) for model, _ in models]
    decay = MomentumDecay(optimizers[0], 30, decay_schedule(beta_min=0.5), start_step=3)
    for step in range(30):
        for (_, backward), optimizer in zip(models, optimizers, strict=True):
            backward(step)
            if optimizer is optimizers[0]:
                decay.step()
            else:
                beta, factor = decay_at(step, 30, 0.95, decay_schedule(beta_min=0.5), start_step=3)
                optimizer.param_groups[0].update(lr=0.01 * factor, betas=(beta, 0.999))
            optimizer.step()
    assert torch.equal(weights(models[0][0]), weights(models[1][0]))


@pytest.mark.parametrize("kind", ["adamw", "sgd", "damped sgd"])
@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("compose", ["multiply", "replace"])
def test_resume_is_bit_for_bit(kind: str, late: bool, compose: str) -> None:
    """Saved after 17 of 40 steps; `late`: the decay is made after the optimiser has loaded its decayed groups."""

    def build(model: nn.Module, optimizer_state: Any = None) -> tuple[Optimizer, LambdaLR, MomentumDecay]:
        parameters = list(model.parameters())
        groups: list[dict[str, Any]] = [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.02}]
        optimizer: Optimizer
        if kind == "adamw":
            optimizer = AdamW(groups, lr=0.01, betas=(0.95, 0.999))
        else:
            optimizer = SGD(groups, lr=0.01, momentum=0.9, dampening=0.9 if kind == "damped sgd" else 0.0)
        scheduler = LambdaLR(optimizer, warmup_cosine)
        if late and optimizer_state:
            optimizer.load_state_dict(optimizer_state)
        schedule = decay_schedule(exact_bias_correction=kind == "adamw")
        decay = MomentumDecay(optimizer, 40, schedule, start_step=5, compose=compose)
        if optimizer_state:
            optimizer.load_state_dict(optimizer_state)
        return optimizer, scheduler, decay

    def train(model: nn.Module, backward: Any, parts: tuple[Any, Any, Any], steps: range) -> None:
        optimizer, scheduler, decay = parts
        for step in steps:
            backward(step)
            decay.step()
            optimizer.step()
            scheduler.step()

    whole, backward = problem()
    train(whole, backward, build(whole), range(40))
    first, backward = problem()
    parts = build(first)
    train(first, backward, parts, range(17))
    saved = copy.deepcopy([part.state_dict() for part in (first, *parts[:2])])
    text = json.dumps(parts[2].state_dict())
    second, backward = problem()
    second.load_state_dict(saved[0])
    resumed = build(second, saved[1])
    resumed[1].load_state_dict(saved[2])
    resumed[2].load_state_dict(json.loads(text))
    train(second, backward, resumed, range(17, 40))
    assert torch.equal(weights(whole), weights(second))
    plain, backward = problem()
    train(plain, backward, (*build(plain)[:2], type("Nothing", (), {"step": lambda self: None})()), range(40))
    assert not torch.equal(weights(whole), weights(plain))


def test_sgd_heavy_ball_needs_no_factor_and_an_average_does() -> None:
    model, backward = problem()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    decay = MomentumDecay(optimizer, 10)
    for step in range(10):
        backward(step)
        decay.step()
        group = optimizer.param_groups[0]
        assert (group["lr"], group["momentum"], group["dampening"]) == (0.1, decay_at(step, 10, 0.9)[0], 0)
        optimizer.step()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, dampening=0.9)
    decay = MomentumDecay(optimizer, 10)
    for step in range(12):
        decay.step()
        beta, factor = decay_at(step, 10, 0.9)
        group = optimizer.param_groups[0]
        assert (group["lr"], group["momentum"], group["dampening"]) == (0.1 * factor, beta, beta)
        optimizer.step()


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


def test_learning_rate_and_betas_as_tensors_keep_their_identity() -> None:
    x = nn.Parameter(torch.zeros(1))
    lr, beta = torch.tensor(0.01, dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64)
    optimizer = Adam([x], lr=lr, betas=(beta, torch.tensor(0.999)), foreach=False)
    decay = MomentumDecay(optimizer, 10)
    for step in range(10):
        x.grad = torch.ones_like(x)
        decay.step()
        expected = decay_at(step, 10, 0.9)
        assert (beta.item(), lr.item()) == pytest.approx((expected[0], 0.01 * expected[1]), rel=1e-12)
        optimizer.step()
        assert lr.item() == pytest.approx(0.01, rel=1e-15)
    group = optimizer.param_groups[0]
    assert group["lr"] is lr
    assert group["betas"][0] is beta


def test_groups_keep_their_own_momentum() -> None:
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    groups: list[dict[str, Any]] = [{"params": [first]}, {"params": [second], "betas": (0.5, 0.99), "lr": 1.0}]
    optimizer = AdamW(groups, lr=0.1)
    decay = MomentumDecay(optimizer, 4)
    for step in range(4):
        decay.step()
        betas = [group["betas"] for group in optimizer.param_groups]
        assert betas == [(decay_at(step, 4, 0.9)[0], 0.999), (decay_at(step, 4, 0.5)[0], 0.99)]
    assert optimizer.param_groups[1]["lr"] == pytest.approx(1.0 - 0.5 * 0.75)


def adamw(**settings: Any) -> AdamW:
    return AdamW([nn.Parameter(torch.zeros(1))], **settings)


def sgd(**settings: Any) -> SGD:
    return SGD([nn.Parameter(torch.zeros(1))], **settings)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: MomentumDecay(sgd(), 10), "^optimizer: SGD has no momentum"),
        (lambda: MomentumDecay(Adagrad([nn.Parameter(torch.zeros(1))]), 10), "^optimizer: Adagrad has no momentum"),
        (lambda: MomentumDecay(sgd(momentum=0.9, dampening=0.5), 10), r"^optimizer: SGD with dampening=0\.5"),
        (lambda: MomentumDecay(sgd(momentum=0.9), 10, decay_schedule(hold_beta=True)), "^hold_beta=True"),
        (
            lambda: MomentumDecay(sgd(momentum=0.9), 10, decay_schedule(exact_bias_correction=True)),
            "^exact_bias_correction=True",
        ),
        (lambda: MomentumDecay(adamw(betas=(0.0, 0.9)), 10), r"^beta_0=0\.0"),
        (lambda: MomentumDecay(adamw(), 10, compose="multiple"), "^compose 'multiple' .*did you mean 'multiply'"),
        (lambda: MomentumDecay(adamw(), 10, start_step=10), "^start_step=10"),
        (lambda: MomentumDecay(adamw(), 0), "^start_step=0"),
        (lambda: MomentumDecay(adamw(), 10, decay_schedule(beta_min=0.95)), r"^beta_min=0\.95"),
        (lambda: MomentumDecay(adamw(), 10, decay_schedule(law="linear", beta_end=0.95)), r"^beta_end=0\.95"),
        (lambda: MomentumDecay(adamw(), 10, decay_schedule(law="exponential", rate=1.5)), r"^rate=1\.5"),
        (lambda: MomentumDecay(adamw(), 10, decay_schedule(law="exponential", floor=0.95)), r"^floor=0\.95"),
        (
            lambda: MomentumDecay(adamw(), 10, decay_schedule(hold_beta=True, compensate=False)),
            "^hold_beta=True changes nothing",
        ),
        (lambda: momentum_decay(0.5, 1.0), r"^beta_0=1\.0"),
    ],
)
def test_errors(make: Callable[[], Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def test_errors_of_groups() -> None:
    optimizer = adamw()
    decay = MomentumDecay(optimizer, 10)
    with pytest.raises(ValueError, match=r"^state: it is of 2 parameter groups"):
        decay.load_state_dict({"step": 3, "beta_0": [0.9, 0.9], "lr_0": [0.1, 0.1]})
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    with pytest.raises(ValueError, match=r"^optimizer: it has gained parameter groups"):
        decay.step()


def test_replacing_begins_with_the_first_step_of_the_decay() -> None:
    """Before it the loop's learning rate stands, from it on the optimiser's first one, here twice as large."""
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    decay = MomentumDecay(optimizer, steps=10, start_step=2, compose="replace")
    optimizer.param_groups[0]["lr"] = 0.05
    rates = []
    for _ in range(4):
        decay.step()
        rates.append(optimizer.param_groups[0]["lr"])
        parameter.grad = torch.ones(1)
        optimizer.step()
    assert rates[:3] == [0.05, 0.05, 0.1]
    assert rates[3] < 0.1
