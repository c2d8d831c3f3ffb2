"""Samples for observations of demonstrations, against the policy's own predictions."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from policy_accel.policy import held_out as module
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.held_out import HeldOut, energy_scores
from policy_accel.policy.run import build_sampler
from policy_accel.policy.track import ROBOT

IMAGES = ["task.images=[img]", "encoder.crop=40", "encoder.resnet.width=16", "encoder.resnet.keypoints=4"]


def test_energy_scores_are_those_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    samples, true = torch.randn(3, 4, 5, 2, generator=generator), torch.randn(4, 5, 2, generator=generator)

    def apart(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a - b).square().mean().sqrt())

    for window, found in enumerate(energy_scores(samples, true)):
        near = sum(apart(sample[window], true[window]) for sample in samples) / 3
        pairs = [apart(samples[k, window], samples[m, window]) for k, m in itertools.permutations(range(3), 2)]
        assert float(found) == pytest.approx(near - sum(pairs) / 12)


@pytest.mark.parametrize("kind", ["global", "inpainting", "pictures"])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_samples_are_the_predictions_for_the_observations(
    kind: str, sampler: str, tiny_config: Callable[..., RobotConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENCODED", 2)
    own = IMAGES if kind == "pictures" else [f"policy.conditioning={kind}"]
    config = tiny_config("sampling.times=[99,50,10]", f"sampling.sampler={sampler}", *own)
    task = ROBOT.build(config)
    policy, chosen = task.policy.eval(), build_sampler(config)
    indices = torch.arange(5)
    batch = task.batch(indices)
    draws = torch.randn(5, chosen.noise_count, policy.config.horizon, policy.channels)
    held_out = HeldOut(policy, batch)
    assert held_out.draw_shape == draws[:, 0].shape
    found = held_out.sample(chosen, iter(draws.unbind(1)))
    observed = task.train.indices[indices][:, : policy.config.n_obs_steps]
    demonstrated = policy.observation_normalizer.inverse(task.observations)[observed]
    observations = demonstrated
    if kind == "pictures":
        assert isinstance(batch.condition, dict)
        observations = {**batch.condition, "state": demonstrated}
    expected = policy.executed_part(policy.plan(observations, draws, sampler=chosen))
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(held_out.true, task.actions[task.train.indices[indices]][:, 1:9].double())
