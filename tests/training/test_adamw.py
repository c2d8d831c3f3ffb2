from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from policy_accel.training.adamw import AdamW, Group
from policy_accel.training.decaying_adamw import DecayingAdamW

STEPS = 60
BETA_2, EPS = 0.999, 1e-8


def parameters() -> list[nn.Parameter]:
    draws = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=draws)) for shape in ((3, 4), (5,), (2,))]


def lr_and_beta(step: int) -> tuple[float, float]:
    return 1e-2 * (1 + step % 7), 0.95 - 0.015 * step


def give_gradients(parts: list[nn.Parameter], step: int) -> None:
    """The last parameter has none."""
    draws = torch.Generator().manual_seed(1 + step)
    for part in parts[:2]:
        part.grad = torch.randn(part.shape, generator=draws)


def torchs_own(weight_decays: tuple[float, float]) -> tuple[list[nn.Parameter], dict[str, Tensor]]:
    """What torch.optim.AdamW makes of the parameters, and its state, when lr and beta change at every step."""
    parts = parameters()
    groups = [
        {"params": part, "weight_decay": decay}
        for part, decay in ((parts[:1], weight_decays[0]), (parts[1:], weight_decays[1]))
    ]
    optimizer = torch.optim.AdamW(groups, eps=EPS, fused=True)
    for step in range(STEPS):
        give_gradients(parts, step)
        for group in optimizer.param_groups:
            group["lr"], beta = lr_and_beta(step)
            group["betas"] = (beta, BETA_2)
        optimizer.step()
    state = optimizer.state_dict()["state"]
    return parts, {f"{index}.{name}": value for index, own in state.items() for name, value in own.items()}


def groups_of(parts: list[nn.Parameter], weight_decays: tuple[float, float]) -> list[Group]:
    return [Group(parts[:1], weight_decays[0]), Group([], 7.0), Group(parts[1:], weight_decays[1])]


def test_equals_torchs_own_bit_for_bit_across_a_restart() -> None:
    decays = (0.1, 0.0)
    parts = parameters()
    optimizer = AdamW(groups_of(parts, decays), betas=(0.5, BETA_2), eps=EPS)
    for step in range(STEPS):
        if step == STEPS // 2:
            saved = {name: value.clone() for name, value in optimizer.state_dict().items()}
            optimizer = AdamW(groups_of(parts, decays), betas=(0.5, BETA_2), eps=EPS)
            optimizer.load_state_dict(saved)
        give_gradients(parts, step)
        optimizer.step(*lr_and_beta(step))
    theirs, state = torchs_own(decays)
    for mine, other in zip(parts, theirs, strict=True):
        assert torch.equal(mine, other)
    assert optimizer.state_dict().keys() == state.keys()
    for name, value in optimizer.state_dict().items():
        assert torch.equal(value, state[name])
    assert float(state["0.step"]) == STEPS
    optimizer.zero_grad()
    assert all(part.grad is None for part in parts)


def test_a_restart_does_not_share_its_memory_with_the_checkpoint() -> None:
    part = nn.Parameter(torch.ones(2))
    optimizer = AdamW([Group([part], 0.0)], betas=(0.9, BETA_2), eps=EPS)
    saved = {"0.step": torch.ones(()), "0.exp_avg": torch.ones(2), "0.exp_avg_sq": torch.ones(2)}
    optimizer.load_state_dict(saved)
    part.grad = torch.full((2,), 3.0)
    optimizer.step(0.1, 0.9)
    assert float(saved["0.step"]) == float(saved["0.exp_avg"][0]) == 1.0
    assert optimizer.state_dict()["0.exp_avg"].tolist() == pytest.approx([1.2, 1.2])


def test_the_averages_of_a_checkpoint_lie_as_the_weights_do() -> None:
    """The fused kernel goes through both in the order of the memory."""
    draws, results = torch.Generator().manual_seed(0), []
    start, *gradients = torch.randn(3, 2, 3, 2, 2, generator=draws)
    for order in (torch.contiguous_format, torch.channels_last):
        part, saved = nn.Parameter(start.clone().contiguous(memory_format=order)), dict[str, Tensor]()
        for gradient in gradients:
            optimizer = AdamW([Group([part], 0.0)], betas=(0.9, BETA_2), eps=EPS)
            optimizer.load_state_dict({name: value.contiguous() for name, value in saved.items()})
            part.grad = gradient.contiguous(memory_format=order)
            optimizer.step(0.1, 0.9)
            saved = optimizer.state_dict()
        results.append(part.detach())
    assert results[1].stride(1) == 1
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_a_first_beta_of_the_device_is_left_to_the_decaying_one() -> None:
    """The fused kernel would wait for it; the configured one is used."""
    results = []
    for lr, beta in ((0.1, 0.9), (torch.tensor(0.1, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64))):
        part = nn.Parameter(torch.ones(2))
        optimizer = AdamW([Group([part], 0.0)], betas=(0.9, BETA_2), eps=EPS)
        for gradient in (1.0, -0.5):
            part.grad = torch.full((2,), gradient)
            optimizer.step(lr, beta)
        results.append(part.detach())
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_decaying_one_equals_torchs_own(weight_decay: float) -> None:
    decays = (weight_decay, weight_decay)
    parts = parameters()
    start = parts[2].clone()
    optimizer = DecayingAdamW(groups_of(parts, decays), betas=(0.5, BETA_2), eps=EPS)
    for step in range(STEPS):
        give_gradients(parts, step)
        optimizer.step(*(torch.tensor(number, dtype=torch.float64) for number in lr_and_beta(step)))  # type: ignore[call-arg]
    theirs, state = torchs_own(decays)
    for mine, other in zip(parts, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)
    assert torch.equal(parts[2], start)
    assert optimizer.state_dict().keys() == state.keys()
    for name, value in optimizer.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", [AdamW, DecayingAdamW])
def test_a_step_that_is_left_out_changes_nothing(kind: type[AdamW]) -> None:
    """Of three steps the one in the middle, whose gradients are not finite."""
    results = []
    for steps in ((0, None, 2), (0, 2)):
        parts = parameters()
        optimizer = kind(groups_of(parts, (0.1, 0.0)), betas=(0.9, BETA_2), eps=EPS)
        for step in steps:
            give_gradients(parts, step or 0)
            if step is None:
                parts[0].grad[0, 0] = float("nan")  # type: ignore[index]
            lr, beta = (torch.tensor(number, dtype=torch.float64) for number in (0.1, 0.9))
            optimizer.step(lr, beta if kind is DecayingAdamW else 0.9, torch.tensor(float(step is None)))  # type: ignore[arg-type]
        results.append([*parts, *optimizer.state_dict().values()])
    for mine, other in zip(*results, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("kind", [AdamW, DecayingAdamW])
def test_a_group_learns_at_a_rate_of_its_own(kind: type[AdamW], on_device: bool) -> None:
    """As it would alone at that rate, its decay included."""
    results = []
    for lr, factor in ((0.1, 0.25), (0.025, 1.0)):
        part = nn.Parameter(torch.ones(2))
        optimizer = kind([Group([part], 0.5, factor)], betas=(0.9, BETA_2), eps=EPS)
        for gradient in (1.0, -0.5):
            part.grad = torch.full((2,), gradient)
            numbers = (torch.tensor(n, dtype=torch.float64) for n in (lr, 0.9)) if on_device else (lr, 0.9)
            if on_device or kind is AdamW:
                optimizer.step(*numbers)  # type: ignore[call-arg, arg-type]
        results.append(part.detach())
    torch.testing.assert_close(*results)


def test_moving_parameters_does_not_load_torchs_compiler() -> None:
    """It takes seconds of every start."""
    code = """
import sys, torch
from policy_accel.training.adamw import AdamW, Group
part = torch.nn.Parameter(torch.ones(2))
part.grad = torch.ones(2)
AdamW([Group([part], 0.0)], betas=(0.9, 0.999), eps=1e-8).step(0.1, 0.9)
print(float(part[0]) < 1.0, "torch._dynamo" in sys.modules, "scipy.optimize" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]
