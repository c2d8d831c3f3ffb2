"""The decay beside optimisers, learning-rate schedulers and loops that set their groups themselves."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR

from policy_accel.acceleration.momentum_decay import (
    DemonDecay,
    ExponentialDecay,
    LinearDecay,
    MomentumDecay,
    decay_at,
    momentum_decay,
)


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
    decay = MomentumDecay(optimizers[0], 30, DemonDecay(beta_min=0.5), start_step=3)
    for step in range(30):
        for (_, backward), optimizer in zip(models, optimizers, strict=True):
            backward(step)
            if optimizer is optimizers[0]:
                decay.step()
            else:
                beta, factor = decay_at(step, 30, 0.95, DemonDecay(beta_min=0.5), start_step=3)
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
        schedule = DemonDecay(exact_bias_correction=kind == "adamw")
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
        (lambda: MomentumDecay(sgd(momentum=0.9), 10, DemonDecay(hold_beta=True)), "^hold_beta=True"),
        (
            lambda: MomentumDecay(sgd(momentum=0.9), 10, DemonDecay(exact_bias_correction=True)),
            "^exact_bias_correction=True",
        ),
        (lambda: MomentumDecay(adamw(betas=(0.0, 0.9)), 10), r"^beta_0=0\.0"),
        (lambda: MomentumDecay(adamw(), 10, compose="multiple"), "^compose 'multiple' .*did you mean 'multiply'"),
        (lambda: MomentumDecay(adamw(), 10, start_step=10), "^start_step=10"),
        (lambda: MomentumDecay(adamw(), 0), "^start_step=0"),
        (lambda: MomentumDecay(adamw(), 10, DemonDecay(beta_min=0.95)), r"^beta_min=0\.95"),
        (lambda: MomentumDecay(adamw(), 10, LinearDecay(beta_end=0.95)), r"^beta_end=0\.95"),
        (lambda: MomentumDecay(adamw(), 10, ExponentialDecay(rate=1.5)), r"^rate=1\.5"),
        (lambda: MomentumDecay(adamw(), 10, ExponentialDecay(floor=0.95)), r"^floor=0\.95"),
        (
            lambda: MomentumDecay(adamw(), 10, DemonDecay(hold_beta=True, compensate=False)),
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
