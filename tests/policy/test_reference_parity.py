"""`recipe=diffusion_policy` against the straight-line re-computation beside it, on the real demonstrations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from policy_accel.diffusion import Sampler
from policy_accel.policy.task import ChunkTask
from policy_accel.policy.track import ROBOT
from policy_accel.training.optimizer import step_values
from policy_accel.training.randomness import Generators
from policy_accel.training.update import Update

from . import straight_line
from .straight_line import PushT, Trace, Weights

UPDATES = 10
CPU = torch.device("cpu")
SMALL_NET = ["model.down_dims=[32,64,128]", "model.kernel_size=3", "model.step_embedding_dim=64"]
FULL_RATE = ["training.optimizer.warmup_steps=0", "training.steps=20"]
FULL_RATE_TOLERANCE = 3e-4


@pytest.fixture(scope="module")
def data(data_file: Path) -> PushT:
    return PushT(data_file)


@pytest.fixture(scope="module")
def batches(data: PushT) -> list[list[int]]:
    """Four windows an update: one repeats the first step of its episode, one the last, two are from anywhere."""
    firsts = [number for number, (_, first) in enumerate(data.windows) if first == -1]
    draw = np.random.default_rng(0)
    return [[firsts[n], firsts[n + 1] - 1, *draw.integers(len(data.windows), size=2)] for n in range(UPDATES)]


@dataclass
class Listed:
    """Batches in a given order."""

    batches: list[list[int]]
    batch_size: int = 4

    def batch(self, step: int) -> torch.Tensor:
        return torch.tensor(self.batches[step])


def build(data_file: Path, batches: list[list[int]], overrides: list[str]) -> tuple[ChunkTask, Update]:
    config = ROBOT.config(["recipe=diffusion_policy", f"task.data={data_file}", "training.batch_size=4", *overrides])
    task = ROBOT.build(config)
    task.to(CPU)
    training = config.training
    generators = Generators(config.seed, CPU)
    order = Listed(batches)
    return task, Update(task, order, training.optimizer, training.ema, steps=training.steps, generators=generators)


def denoiser_weights(policy: torch.nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in policy.denoiser.named_parameters()}


def train(data_file: Path, batches: list[list[int]], overrides: list[str]) -> tuple[Weights, Trace]:
    """The initial weights and what the package's own updates make of them."""
    task, update = build(data_file, batches, overrides)
    initial = denoiser_weights(task.policy)
    losses, rates = [], []
    for step in range(len(batches)):
        losses.append(update(step)[0].item())
        rates.append(step_values(update.config, step, update.steps)[0])
    return initial, Trace(losses, rates, denoiser_weights(task.policy), denoiser_weights(update.ema.model))


def largest_difference(one: Weights, other: Weights) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def relative_distance(one: Weights, other: Weights, start: Weights) -> float:
    """Length of one - other in units of the way from `start` to `other`, all weights together."""
    apart = math.hypot(*(torch.dist(one[name], other[name]).item() for name in one))
    return apart / math.hypot(*(torch.dist(other[name], start[name]).item() for name in one))


def test_ten_updates_with_the_net_of_the_recipe(data_file: Path, data: PushT, batches: list[list[int]]) -> None:
    """At a quarter of its width, since the whole takes 3.5 GB here; test_recipe.py counts the whole one's weights."""
    initial, ours = train(data_file, batches, ["model.down_dims=[64,128,256]"])
    straight = straight_line.train(data, initial, batches, warmup=500, steps=210_000)
    assert len(ours.losses) == UPDATES
    assert abs(ours.losses[0] - straight.losses[0]) < 1e-6
    np.testing.assert_allclose(ours.losses, straight.losses, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours.rates, straight.rates, rtol=1e-12, atol=0)
    assert largest_difference(ours.live, straight.live) < 1e-6
    assert largest_difference(ours.averaged, straight.averaged) < 1e-6


@pytest.mark.parametrize("weight_decay", [1e-6, 1.0])
def test_ten_updates_at_full_rate(data_file: Path, data: PushT, batches: list[list[int]], weight_decay: float) -> None:
    """The first rates of the warm-up are too small to show a wrong optimiser, and a decay of 1e-6 never shows.

    Adam divides by the gradient's own size, so the few weights whose gradient is below its rounding error move either
    way: we saw single weights 5e-6 apart, and all of them together 4e-5 of the way gone. The least of the wrong
    settings in the next test moves them 2.6e-3 of the way.
    """
    decay = f"training.optimizer.weight_decay={weight_decay}"
    initial, ours = train(data_file, batches, [*SMALL_NET, *FULL_RATE, decay])
    straight = straight_line.train(data, initial, batches, warmup=0, steps=20, weight_decay=weight_decay)
    np.testing.assert_allclose(ours.losses, straight.losses, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours.rates, straight.rates, rtol=1e-12, atol=0)
    assert relative_distance(ours.live, straight.live, initial) < FULL_RATE_TOLERANCE
    assert relative_distance(ours.averaged, straight.averaged, initial) < FULL_RATE_TOLERANCE


@pytest.mark.parametrize(
    "wrong", [{"betas": (0.9, 0.999)}, {"betas": (0.95, 0.99)}, {"eps": 1e-7}, {"weight_decay": 0.01}]
)
def test_the_tolerance_shows_a_wrong_optimiser(
    data_file: Path, data: PushT, batches: list[list[int]], wrong: dict[str, object]
) -> None:
    initial = denoiser_weights(build(data_file, [], SMALL_NET)[0].policy)
    right = straight_line.train(data, initial, batches, warmup=0, steps=20, weight_decay=1.0)
    other = straight_line.train(data, initial, batches, warmup=0, steps=20, **{"weight_decay": 1.0, **wrong})
    assert relative_distance(other.live, right.live, initial) > 5 * FULL_RATE_TOLERANCE


def test_loss_with_inpainting(data_file: Path, data: PushT, batches: list[list[int]]) -> None:
    initial, ours = train(data_file, batches[:1], ["policy.conditioning=inpainting", *SMALL_NET])
    errors = straight_line.inpainting_errors(data, initial, batches[0])
    entries, given = 16 * 22, 2 * 20
    assert abs(ours.losses[0] - errors.sum().item() / 4 / (entries - given)) < 1e-6
    # The reference divides by all entries, though those that are given contribute nothing.
    assert abs(ours.losses[0] * (entries - given) / entries - errors.mean().item()) < 1e-6


@pytest.mark.parametrize("conditioning", ["global", "inpainting"])
@pytest.mark.parametrize("evaluations", [10, 100])
def test_executed_actions(
    data_file: Path, data: PushT, monkeypatch: pytest.MonkeyPatch, conditioning: str, evaluations: int
) -> None:
    """The tolerance is a hundred-thousandth of the field of 512 px: diffusers computes its coefficients in float32.

    In float64 the straight line itself lies 1.3e-3 px from its float32 form after 100 steps, and 2e-4 px from ours.
    """
    overrides = [f"policy.conditioning={conditioning}", f"sampling.steps={evaluations}", *SMALL_NET]
    config = ROBOT.config(["recipe=diffusion_policy", *overrides])
    task, _ = build(data_file, [], overrides)
    raw = data.observation[np.stack([data.rows(number)[:2] for number in (0, 500, 9000)])]
    sampler = Sampler(task.objective, config.sampling)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(3, *task.policy.noise_shape(sampler), generator=generator)
    assert noise.shape == (3, 1 + evaluations, 16, 2 if conditioning == "global" else 22)
    fresh = iter(noise[:, 1:].unbind(1))
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: next(fresh))
    expected = straight_line.executed_actions(
        data,
        denoiser_weights(task.policy),
        straight_line.normalised(raw, data.observation),
        noise,
        inpainting=conditioning == "inpainting",
    )
    actions = task.policy.eval().predict(torch.from_numpy(raw), noise, sampler=sampler)
    np.testing.assert_allclose(actions.numpy(), expected, rtol=0, atol=5e-3)
