"""The figures against brute force, and against the policy's own predictions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from policy_accel.policy.run import build_sampler
from policy_accel.policy.track import ROBOT
from policy_accel.time_to_score.plan import Plan
from policy_accel.time_to_score.surrogates import NAMES, energy_distance, energy_score, surrogates
from policy_accel.training.randomness import named_generator


def norm(chunk: np.ndarray) -> float:
    return float(np.sqrt(np.mean(chunk**2)))


def test_energy_score_is_that_of_the_formula() -> None:
    generator = np.random.default_rng(0)
    samples, true = generator.normal(size=(4, 5, 3, 2)), generator.normal(size=(5, 3, 2))
    total = 0.0
    for i in range(5):
        near = np.mean([norm(samples[k, i] - true[i]) for k in range(4)])
        apart = np.mean([norm(samples[k, i] - samples[m, i]) for k, m in itertools.permutations(range(4), 2)])
        total += near - apart / 2
    assert energy_score(torch.tensor(samples), torch.tensor(true)) == pytest.approx(total / 5)


def test_energy_distance_is_that_of_the_formula() -> None:
    generator = np.random.default_rng(1)
    samples, true = generator.normal(1, 1, size=(6, 3, 2)), generator.normal(size=(4, 3, 2))
    between = np.mean([norm(a - b) for a in samples for b in true])
    own = [np.mean([norm(a - b) for a, b in itertools.permutations(chunks, 2)]) for chunks in (samples, true)]
    found = energy_distance(torch.tensor(samples), torch.tensor(true))
    assert found == pytest.approx(2 * between - sum(own))


def two_ways(probability: float, windows: int, noises: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples of a policy that takes one of two ways with a probability, where half of the demonstrations do."""
    generator = np.random.default_rng(seed)
    true = np.where(generator.random((windows, 1, 1)) < 0.5, 1.0, -1.0) + 0.05 * generator.normal(size=(windows, 4, 2))
    taken = np.where(generator.random((noises, windows, 1, 1)) < probability, 1.0, -1.0)
    return torch.tensor(taken + 0.05 * generator.normal(size=(noises, windows, 4, 2))), torch.tensor(true)


def test_energy_finds_the_wrong_probability_and_the_action_error_does_not() -> None:
    right, wrong = two_ways(0.5, 400, 8, 0), two_ways(0.95, 400, 8, 0)
    assert energy_score(*right) < energy_score(*wrong) - 0.1
    assert abs(energy_distance(right[0][0], right[1])) < 0.03
    assert energy_distance(wrong[0][0], wrong[1]) > 0.2
    errors = [float((samples - true).square().mean()) for samples, true in (right, wrong)]
    assert errors[0] == pytest.approx(errors[1], rel=0.1)
    mean = float(wrong[1].square().mean())  # of a policy that goes between the ways
    assert mean < errors[0] - 0.5


def test_figures_are_those_of_the_policys_predictions(plan: Callable[..., Plan], place: Path) -> None:
    """Sampled in the data's units from raw observations, as `predict` does, and normalised again."""
    settings = ["recipe=two_modes", "task.data=toy.npz", "task.val_ratio=0.2", "model.hidden_dims=[16]", "run_dir=r",
                "training.steps=3", "training.device=cpu", "training.threads=1", "evaluation.episodes=0"]  # fmt: skip
    config = ROBOT.config(settings)
    ROBOT.train(config)
    run, task = ROBOT.load(Path("r")), ROBOT.build(config)
    found = surrogates(run, task, windows=5, noises=2, noise_seed=3)
    assert tuple(found) == NAMES
    steps = task.validation.indices[[0, 3, 6, 9]]
    assert len(task.validation.indices) == 12, "every third of the 12 held-out windows"
    policy = run.policy
    observations = policy.observation_normalizer.inverse(task.observations)[steps][:, :1]
    true = task.actions[steps].double()
    for count in (1, 8):
        config.sampling.steps = count
        sampler = build_sampler(config)
        errors = []
        for number in range(2):
            generator = named_generator(3, "surrogates", number)
            noise = torch.randn(4, *policy.noise_shape(sampler), generator=generator)
            chunk = policy.action_normalizer(policy.predict(observations, noise, sampler=sampler))
            errors.append(float((chunk.double() - true).square().mean()))
        assert found[f"action_error_{count}"] == pytest.approx(np.mean(errors), rel=1e-4)
