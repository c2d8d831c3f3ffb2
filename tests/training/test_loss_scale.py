"""Updates in fp16: the factor on the loss, and what an overflow leaves alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.simulated_cuda import CUDA, SimulatedCuda
from torch import Tensor

from policy_accel.acceleration.momentum_decay import DemonDecay
from policy_accel.training import TrainingConfig
from policy_accel.training.ema import EMAConfig
from policy_accel.training.loss_scale import LossScale
from policy_accel.training.metrics import LossBuffer
from policy_accel.training.optimizer import OptimizerConfig
from policy_accel.training.randomness import DataOrder, Generators
from policy_accel.training.update import Update

CPU = torch.device("cpu")
OVERFLOWS = 2.0**24
"""A factor at which the gradients of the toy task do not fit into fp16."""
STEPS = 10

pytestmark = pytest.mark.usefixtures("quick_warm_up")


def update_of(task: Any, device: torch.device, *, captured: bool = False, **optimizer: Any) -> Update:
    task.to(device)
    update = Update(
        task,
        DataOrder(task.samples, 8, 3, device),
        OptimizerConfig(lr=1e-2, warmup_steps=0, weight_decay=0.1, **optimizer),
        EMAConfig(),
        steps=STEPS,
        generators=Generators(3, device),
        precision="fp16",
        captured=captured,
        log_every=STEPS,
    )
    assert update.scale is not None
    update.scale.factor.fill_(OVERFLOWS)
    return update


def values(update: Update) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value.detach().cpu().clone()
        for name, part in update.tensors().items()
        for key, value in part.items()
    }


def test_the_factor_moves_as_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy_accel.training.loss_scale.INTERVAL", 3)
    scale, theirs = LossScale(CPU), torch.amp.GradScaler("cpu", growth_interval=3)
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    factors = []
    for number in range(12):
        gradient = torch.tensor([1.0, float("inf") if number in (1, 8, 9) else 2.0])
        parameter.grad = theirs.scale(gradient.clone())
        theirs.step(optimizer)
        theirs.update()
        own = gradient * scale.factor
        scale.unscale([own])
        scale.follow()
        assert float(scale.left_out) == (number in (1, 8, 9))
        assert torch.equal(own[0], torch.tensor(1.0))
        factors.append(float(scale.factor))
        assert factors[-1] == theirs.get_scale()
    assert factors[:5] == [2.0**16, 2.0**15, 2.0**15, 2.0**15, 2.0**16]


def test_an_overflow_leaves_everything_but_the_factor_alone(device_task: Callable[..., Any]) -> None:
    update = update_of(device_task(), CPU, clip_grad_norm=1.0)
    states = [values(update)]
    for step in range(STEPS):
        update(step)
        states.append(values(update))
    factors = [float(state["loss_scale/factor"]) for state in states]
    left_out = [after < before for before, after in itertools.pairwise(factors)]
    assert 0 < sum(left_out) < STEPS
    assert left_out[0]
    for before, after, out in zip(states[:-1], states[1:], left_out, strict=True):
        moved = {
            key
            for key, value in after.items()
            if key.startswith(("optimizer", "model"))
            and not key.startswith("model/layers.1.")  # statistics of the batches
            and not torch.equal(value, before.get(key, torch.zeros_like(value)))
        }
        assert bool(moved) is not out, moved
        assert all(value.isfinite().all() for value in after.values())
    assert float(states[-1]["optimizer/0.step"]) == STEPS - sum(left_out)
    norm = update.log.read().grad_norm
    assert norm is not None
    assert 0 < norm < 100


@pytest.mark.parametrize(
    "optimizer", [{}, {"clip_grad_norm": 0.5}, {"momentum_decay": DemonDecay()}], ids=["plain", "clipped", "decaying"]
)
def test_graphs_give_the_same_updates_without_a_wait(
    optimizer: dict[str, Any], device_task: Callable[..., Any]
) -> None:
    def states(device: torch.device, captured: bool) -> list[dict[str, Tensor]]:
        update = update_of(device_task(), device, captured=captured, **optimizer)
        found = []
        for step in range(STEPS):
            with cuda.phase("update" if step == STEPS - 1 else "before"):
                update(step)
            found.append(values(update))
        return found

    with SimulatedCuda() as cuda:
        eager = states(CUDA, False)
        assert not cuda.waits["update"]
        captured = states(CUDA, True)
        assert not cuda.waits["update"]
        assert not cuda.hazards
    assert 0 < float(captured[-1]["optimizer/0.step"]) < STEPS
    for one, other in zip(eager, captured, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_run_goes_on_with_its_factor(
    toy_task: Callable[..., Any], config: TrainingConfig, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(name: str) -> list[bytes]:
        folder = tmp_path / name / "checkpoints" / "last"
        return [(folder / f"{part}.safetensors").read_bytes() for part in ("model", "ema", "optimizer", "loss_scale")]

    monkeypatch.setattr("policy_accel.training.loss_scale.START", OVERFLOWS)
    config.precision = "fp16"
    run(toy_task(), config, "whole")
    config.steps = 6
    run(toy_task(), config, "parts", run_config={})
    monkeypatch.setattr("policy_accel.training.loss_scale.START", 1.0)
    config.steps = 12
    run(toy_task(), config, "parts", run_config={})
    assert weights("parts") == weights("whole")
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    factors = [row["loss_scale"] for row in rows if "loss_scale" in row]
    assert OVERFLOWS > factors[0] >= factors[-1] > 1.0


def test_norms_that_are_not_finite_are_left_out_of_the_log() -> None:
    buffer = LossBuffer(3, CPU, clipped=True)
    for expected, norms in ((2.0, (float("inf"), 1.0, 3.0)), (None, (float("nan"),))):
        for norm in norms:
            buffer.add(torch.tensor(1.0), torch.tensor(norm))
            buffer.count += 1
        assert buffer.read().grad_norm == expected


def test_a_loss_that_is_a_sum_is_scaled_behind_the_network(toy_task: Any) -> None:
    """Its gradients would leave fp16 long before those of the mean do: they are multiplied where they are divided."""
    gradients = {}
    for reduction in ("mean", "sum"):
        task = toy_task()
        task.objective = replace(task.objective, reduction=reduction)
        update = update_of(task, CPU)
        update.scale.factor.fill_(2.0**10)  # type: ignore[union-attr]
        update._differentiate(*update.feed(0).examples())
        gradients[reduction] = torch.cat([parameter.grad.flatten() for parameter in update.parameters])
    values_of_a_sample = 3
    assert float(gradients["mean"].abs().max()) > 0
    torch.testing.assert_close(gradients["sum"], values_of_a_sample * gradients["mean"], rtol=1e-6, atol=0)
