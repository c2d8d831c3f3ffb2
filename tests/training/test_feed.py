"""The feed: the next batch's noise is assigned while this one trains, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import killed_at, training_rows, weights
from support.tensors import same
from torch import Tensor

from policy_accel.acceleration.assigned_noise import AssignedNoise
from policy_accel.acceleration.nearest_noise import NearestChoice
from policy_accel.acceleration.timestep_distributions import LossSecondMoment
from policy_accel.diffusion import Batch, Objective, Repetition, karhunen_loeve_process, vp_process
from policy_accel.diffusion.batch import Condition
from policy_accel.diffusion.noise import IndependentNoise
from policy_accel.models import Denoiser
from policy_accel.run_files import read_metrics
from policy_accel.training import TrainingConfig
from policy_accel.training.feed import Feed
from policy_accel.training.loss import denoising_loss, denoising_loss_and_errors
from policy_accel.training.randomness import DataOrder, Generators

Run = Callable[..., Any]
CPU = torch.device("cpu")


def make(task: Any, noise: Any, seed: int = 3) -> Feed:
    task.objective = replace(task.objective, noise=noise)
    order = DataOrder(task.samples, 8, seed, CPU)
    return Feed(task, order, Generators(seed, CPU), steps=6, average=task.model)


def test_assigning_ahead_gives_the_same_examples(toy_task: Any) -> None:
    ahead, inline = (make(toy_task(jitter=0.5), AssignedNoise(metric="dot")) for _ in range(2))
    inline.ahead = False
    assert ahead.ahead
    for step in range(6):
        (batch, noised), (other_batch, other) = ahead(step).examples(), inline(step).examples()
        assert torch.equal(batch.x0, other_batch.x0)
        assert torch.equal(noised.x_t, other.x_t)
        assert torch.equal(noised.t, other.t)
        assert ahead._next is None if step == 5 else ahead._next is not None


def test_the_state_is_that_of_the_next_batch_to_come(toy_task: Any) -> None:
    feed = make(toy_task(jitter=0.5), AssignedNoise(metric="l2"))
    feed(0)
    state = feed.state()
    expected = [feed(step).examples()[1].x_t for step in range(1, 6)]
    again = make(toy_task(jitter=0.5), AssignedNoise(metric="l2"), seed=4)
    again.order = feed.order
    again.restore(state)
    for step, x_t in enumerate(expected, start=1):
        assert torch.equal(again(step).examples()[1].x_t, x_t)


def test_what_a_task_draws_leaves_times_and_noise_alone(toy_task: Any) -> None:
    """And the other way round: batches come from a stream of their own, the same whatever noise is drawn."""
    plain, jittered = make(toy_task(), IndependentNoise()), make(toy_task(jitter=0.5), IndependentNoise())
    assigned = make(toy_task(jitter=0.5), AssignedNoise(metric="dot"))
    for step in range(3):
        (batch, noised), (moved, other), (same, _) = (feed(step).examples() for feed in (plain, jittered, assigned))
        assert torch.equal(noised.t, other.t)
        assert torch.equal(noised.target, other.target)
        assert torch.equal(moved.x0, same.x0)
        assert 0.2 < float((moved.x0 - batch.x0).std()) < 0.8


def test_nothing_runs_ahead_of_a_law_that_learns(toy_task: Any) -> None:
    task = toy_task()
    task.objective = replace(task.objective, times=LossSecondMoment(100))
    assert not make(task, AssignedNoise(metric="dot")).ahead


class Guess(Denoiser):
    """An average that predicts the sample 3 whatever it is given, and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        self.seen.append((x, t))
        return torch.full_like(x, 3.0)


def test_noise_is_assigned_around_the_average_models_prediction(toy_task: Any) -> None:
    """The prediction comes from pure noise at the last time, and is taken off the data before the cost."""
    task, guess = toy_task(), Guess()
    noise = AssignedNoise(metric="dot", center="denoiser")
    task.objective = replace(task.objective, target="sample", noise=noise, data_scale=2.0)
    feed = Feed(task, DataOrder(40, 8, 3, CPU), Generators(3, CPU), steps=6, average=guess)
    assert not feed.ahead
    feed(0).examples()
    x, t = guess.seen[0]
    assert t.tolist() == [99] * 8
    assert abs(float(x.std()) - 1) < 0.5
    assert noise.last is not None
    # The objective works on doubled data, and 3 is a sample of those.
    torch.testing.assert_close(noise.last.data, 2.0 * task.data[torch.tensor(task.batches[0])] - 3.0)


class Encoder(Denoiser):
    """A denoiser with an observation encoder that counts the observations it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded = 0
        self.seen: list[Tensor] = []

    def encode(self, condition: Condition | None) -> Tensor:
        assert isinstance(condition, Tensor)
        self.encoded += condition.shape[0]
        return 10 * condition

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None
        self.seen.append(condition)
        return x + condition


def test_an_observation_is_encoded_once_for_all_its_times() -> None:
    process = karhunen_loeve_process(vp_process(), 4)
    objective = Objective(process, "epsilon", repetition=Repetition(times_per_sample=4))
    batch = Batch(torch.zeros(5, 2), condition=torch.arange(5.0).view(5, 1), counted=torch.ones(5, 1).bool())
    noised = objective.draw(batch, torch.Generator(), torch.Generator())
    model = Encoder()
    loss = denoising_loss(model, batch, noised)
    assert model.encoded == 5
    assert noised.counted is not None
    assert noised.counted.shape[0] == 20
    expected = 10 * torch.arange(5.0).repeat_interleave(4).view(20, 1)
    assert torch.equal(model.seen[0], expected)
    straight = (noised.x_t + expected - noised.target).square().mean()
    torch.testing.assert_close(loss, straight)


def test_errors_of_each_row_leave_out_weight_and_mask() -> None:
    counted = torch.tensor([[True, False], [True, True]])
    batch = Batch(torch.zeros(2, 2), counted=counted)
    objective = Objective(vp_process(), "sample", weights=torch.full((100,), 3.0, dtype=torch.float64))
    noised = objective.draw(batch, torch.Generator(), torch.Generator())

    class One(Denoiser):
        def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
            return torch.tensor([[1.0, 9.0], [2.0, 4.0]])

    loss, errors = denoising_loss_and_errors(One(), batch, noised)
    assert errors.tolist() == [1.0, 10.0]
    assert float(loss) == pytest.approx(3 * (1 + 4 + 16) / 3)


CHOICES: dict[str, Callable[[Objective], Objective]] = {
    "assignment": lambda o: replace(o, noise=AssignedNoise(metric="l2")),
    "nearest": lambda o: replace(o, noise=NearestChoice(4, "l2")),
    "late": lambda o: replace(o, noise=AssignedNoise(metric="dot", start_score=0.5)),
    "path": lambda o: replace(
        o,
        process=karhunen_loeve_process(o.process, 3),  # type: ignore[arg-type]
        repetition=Repetition(times_per_sample=3),
        noise=AssignedNoise(metric="dot"),
    ),
    "fresh": lambda o: replace(o, repetition=Repetition(times_per_sample=2, coupling="fresh")),
    "second moment": lambda o: replace(o, times=LossSecondMoment(100, history=1)),
}


@pytest.mark.parametrize("name", list(CHOICES))
@pytest.mark.parametrize("stop", [4, 7])
def test_a_run_that_was_stopped_ends_with_the_same_bits(
    name: str, stop: int, toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    """Scores rise with every evaluation, so the late choice begins in the middle of the run."""
    config.evaluate_every, config.checkpoint.keep_last = 3, 9

    def task() -> Any:
        made = toy_task(score=lambda model: {"score": next(scores)}, jitter=0.1)
        made.objective = CHOICES[name](made.objective)
        return made

    scores = iter([0.1, 0.6, 0.2, 0.3])
    run(task(), config, "whole")
    scores = iter([0.1, 0.6])
    with killed_at(stop) as crash:
        run(task(), config, "parts", after_update=crash)
    scores = iter([0.6, 0.2, 0.3] if stop == 4 else [0.2, 0.3])
    run(task(), config, "parts")
    whole = weights(tmp_path / "whole")
    assert same(whole, weights(tmp_path / "parts"))
    scores = iter([0.1] * 4)
    if name == "late":
        run(task(), config, "never")
        never = weights(tmp_path / "never")
        assert not any(torch.equal(whole[key], never[key]) for key in whole if key.endswith("layers.0.weight"))


def test_the_log_says_what_the_assignment_did(toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path) -> None:
    task = toy_task()
    task.objective = replace(task.objective, noise=AssignedNoise(metric="dot", start_step=6))
    run(task, config)
    rows = training_rows(tmp_path / "run")
    assert ["noise_alignment" in row for row in rows] == [row["step"] > 6 for row in rows]
    last = rows[-1]
    assert last["noise_distance_after"] < last["noise_distance_before"]
    assert 0 < last["noise_rows_moved"] <= 1
    assert last["noise_milliseconds"] > 0
    assert last["noise_square"] > 0


def test_the_log_says_what_the_nearest_noise_did(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    task = toy_task()
    task.objective = replace(task.objective, noise=NearestChoice(8, "dot"))
    run(task, config)
    last = training_rows(tmp_path / "run")[-1]
    assert last["noise_alignment"] > 0
    assert 0.5 < last["noise_rows_moved"] <= 1
    assert {"noise_distance_after", "noise_square"} <= set(last)


def test_fresh_draws_several_samples_for_each_place_of_a_batch(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    task = toy_task()
    task.objective = CHOICES["fresh"](task.objective)
    run(task, config)
    assert {len(batch) for batch in task.batches} == {16}
    epochs = [row["epoch"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "epoch" in row]
    assert epochs[-1] == pytest.approx(12 * 16 / 40)


def test_groups_fill_the_batches(toy_task: Any, config: TrainingConfig, run: Run) -> None:
    task = toy_task()
    task.groups, task.group_run = torch.arange(40) % 5, 4
    run(task, config)
    epoch = [index for batch in task.batches for index in batch][:40]
    assert sorted(epoch) == list(range(40))
    runs = [[index % 5 for index in epoch[i : i + 4]] for i in range(0, 40, 4)]
    assert all(len(set(members)) == 1 for members in runs)


def test_the_noise_begins_after_the_score(toy_task: Any) -> None:
    noise = AssignedNoise(metric="dot", start_step=2, start_score=0.5)
    assert [noise.chooses(step) for step in (0, 5)] == [False, False]
    noise.observe_score(3, 0.4)
    assert not noise.chooses(9)
    noise.observe_score(6, 0.5)
    noise.observe_score(9, 0.9)
    assert [noise.chooses(step) for step in (6, 7, 8)] == [False, True, True]
    assert [AssignedNoise(metric="dot", start_step=2).chooses(step) for step in (1, 2)] == [False, True]
