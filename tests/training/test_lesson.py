"""Targets that networks make: what a lesson is given, and that it is a part of the update like any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.simulated_cuda import CUDA, SimulatedCuda

from policy_accel.diffusion import Batch, Noised, Repetition
from policy_accel.errors import UserError
from policy_accel.models import Denoiser
from policy_accel.training import TrainingConfig
from policy_accel.training.ema import EMAConfig
from policy_accel.training.lesson import Lesson
from policy_accel.training.optimizer import OptimizerConfig
from policy_accel.training.randomness import DataOrder, Generators
from policy_accel.training.update import Update

CPU = torch.device("cpu")


class FromTheAverage(Lesson):
    """The first row of each sample learns what the average predicts for its pure noise, at twice the weight."""

    asks_weights = True
    evaluations = 1
    fingerprint = "the average"

    def __init__(self) -> None:
        self.factor = torch.tensor(0.5)
        self.seen: list[tuple[Batch, Noised]] = []
        self.networks: list[tuple[Denoiser, Denoiser, bool]] = []

    def to(self, device: torch.device) -> None:
        self.factor = self.factor.to(device)

    def __call__(self, batch: Batch, noised: Noised, model: Denoiser, average: Denoiser) -> Noised:
        self.seen.append((batch, noised))
        self.networks.append((model, average, torch.is_grad_enabled()))
        assert noised.noise is not None
        rows = noised.noise.unflatten(0, (-1, noised.repeats))[:, 0]
        t = noised.t.unflatten(0, (-1, noised.repeats))[:, 0]
        taught = self.factor * average(rows, t, average.encode(batch.condition))
        target, inputs = (
            part.unflatten(0, (-1, noised.repeats)).clone() for part in (noised.target, noised.model_input)
        )
        weight = torch.ones(target.shape[:2], device=target.device, dtype=torch.float64)
        target[:, 0], inputs[:, 0], weight[:, 0] = taught, rows, 2.0
        return replace(
            noised, target=target.flatten(0, 1), model_input=inputs.flatten(0, 1), weight=weight.flatten(0, 1)
        )


def update_of(task: Any, device: torch.device = CPU, **options: Any) -> Update:
    task.objective = replace(task.objective, repetition=Repetition(2, "independent"))
    task.to(device)
    return Update(
        task,
        DataOrder(task.samples, 8, 3, device),
        OptimizerConfig(lr=1e-2, warmup_steps=0),
        EMAConfig(),
        steps=12,
        generators=Generators(3, device),
        log_every=12,
        **options,
    )


def test_the_loss_is_that_of_what_the_lesson_gives(device_task: Callable[..., Any]) -> None:
    task = device_task()
    task.lesson = lesson = FromTheAverage()
    update = update_of(task)
    for step in range(3):
        update(step)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    average = {name: value.clone() for name, value in update.ema.model.state_dict().items()}
    loss, _ = update(3)
    batch, noised = lesson.seen[-1]
    assert noised.noise is not None
    assert noised.repeats == 2
    model, averaged, gradients = lesson.networks[-1]
    assert (model, averaged, gradients) == (task.model, update.ema.model, False)
    task.model.load_state_dict(average)
    taught = 0.5 * task.model.eval()(noised.noise[0::2], noised.t[0::2])
    task.model.load_state_dict(before)
    inputs = noised.model_input.clone()
    inputs[0::2] = noised.noise[0::2]
    predicted = task.model.train()(inputs, noised.t)
    errors = [2.0 * (predicted[0::2] - taught).square().mean(), (predicted - noised.target)[1::2].square().mean()]
    torch.testing.assert_close(loss, torch.stack(errors).mean().detach())
    x_t = task.objective.process.diffuse(batch.x0.repeat_interleave(2, 0), noised.noise, noised.t)
    assert torch.equal(x_t, noised.x_t), "the noise is what is in the sample"


def without_statistics(task: Any) -> Any:
    """Those of a piece are not the batch's, and the bias before them, whose gradient is rounding alone, moves the
    average."""
    task.model.layers[1] = torch.nn.Identity()
    return task


def test_pieces_of_a_batch_are_the_batch(device_task: Callable[..., Any]) -> None:
    def losses(pieces: int) -> list[float]:
        task = without_statistics(device_task())
        task.lesson = lesson = FromTheAverage()
        update = update_of(task, pieces=pieces)
        found = [float(update(step)[0]) for step in range(4)]
        assert len(lesson.seen) == 4 * pieces
        return found

    assert losses(2) == pytest.approx(losses(1), rel=1e-5)


def test_a_graph_holds_the_lesson(device_task: Callable[..., Any]) -> None:
    def task_with_it() -> Any:
        task = without_statistics(device_task())
        task.lesson = FromTheAverage()
        return task

    plain = update_of(task_with_it())
    expected = [float(plain(step)[0]) for step in range(8)]
    with SimulatedCuda() as cuda:
        update = update_of(task_with_it(), CUDA, captured=True)
        found = []
        for step in range(8):
            with cuda.phase("update" if step > 5 else "before"):
                loss, _ = update(step)
            found.append(float(loss.cpu()))
        assert not cuda.waits["update"]
        assert not cuda.hazards
        assert cuda.launches["update"]["graph"] == 2
    assert found == pytest.approx(expected, rel=1e-4)


def test_half_precision_teaches_in_float32(device_task: Callable[..., Any]) -> None:
    task = device_task()
    task.lesson = FromTheAverage()
    assert torch.isfinite(update_of(task, precision="bf16")(0)[0])


def test_a_run_goes_on_with_its_teacher_alone(toy_task: Any, config: TrainingConfig, run: Any) -> None:
    def stop(step: int) -> None:
        if step == 6:
            raise KeyboardInterrupt

    def taught(by: str | None) -> Any:
        task = toy_task()
        if by is not None:
            task.lesson = FromTheAverage()
            task.lesson.fingerprint = by
        return task

    config.checkpoint.every = 3
    run(taught("one"), config, after_update=stop)
    for other in ("another", None):
        with pytest.raises(UserError, match="taught by another network than the teacher is now"):
            run(taught(other), config)
    assert run(taught("one"), config).finished


def test_the_log_counts_the_teacher(toy_task: Any) -> None:
    """Three forward passes are one with its gradient."""
    task = toy_task()
    task.flops_per_sample, task.objective = 30.0, replace(task.objective, repetition=Repetition(2, "independent"))
    assert task.training_flops(10) == 10 * 2 * 30.0
    task.lesson = FromTheAverage()
    task.lesson.evaluations = 8
    assert task.training_flops(10) == pytest.approx(10 * (2 * 30.0 + 8 * 10.0))


def test_a_network_of_which_each_process_has_a_share_is_not_asked(device_task: Callable[..., Any]) -> None:
    task = device_task()
    task.lesson = FromTheAverage()
    with pytest.raises(UserError, match=r"set training\.shard=false"):
        update_of(task, sharded=True)
