from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from policy_accel.errors import UserError
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.evaluate import PolicyEvaluator
from policy_accel.policy.run import build_policy
from policy_accel.training.randomness import named_generator

Build = Callable[..., RobotConfig]
SHORT = ["task.max_steps=24", "evaluation.videos=0", "sampling.steps=2"]


def score(config: RobotConfig, tmp_path: Path) -> dict[str, object]:
    policy = build_policy(config, 5, 2)
    evaluator = PolicyEvaluator(config, policy, tmp_path)
    try:
        policy.action_normalizer.scale.fill_(1 / 256)
        policy.action_normalizer.offset.fill_(-1)
        return evaluator(policy, print)
    finally:
        evaluator.close()


def test_scores_follow_from_seeds_and_not_from_workers(tiny_config: Build, tmp_path: Path) -> None:
    options = ["evaluation.episodes=5", "evaluation.slots=2", *SHORT]
    alone, helped, other = (
        score(tiny_config(*options, *extra), tmp_path)
        for extra in (["evaluation.workers=0"], ["evaluation.workers=2"], ["evaluation.start_seed=7"])
    )
    assert alone["episodes"] == helped["episodes"]
    assert alone["episodes"] != other["episodes"]
    rows = alone["episodes"]
    assert isinstance(rows, list)
    assert [row["seed"] for row in rows] == [100_000, 100_001, 100_002, 100_003, 100_004]
    assert alone["score"] == pytest.approx(np.mean([row["score"] for row in rows]))
    assert {"score_interval", "success_rate", "success_interval", "sampler", "sampling_steps", "seconds"} <= set(alone)
    assert alone["network_evaluations"] == 2


def test_every_chunk_of_every_episode_begins_with_noise_of_its_own(tiny_config: Build, tmp_path: Path) -> None:
    """Noise follows from (noise seed, episode, chunk): what the denoiser is given first is that very tensor."""

    def first_inputs(*overrides: str) -> list[torch.Tensor]:
        config = tiny_config("evaluation.episodes=2", "evaluation.slots=2", "evaluation.workers=0", *SHORT, *overrides)
        policy, inputs = build_policy(config, 5, 2), []
        evaluator = PolicyEvaluator(config, policy, tmp_path)
        policy.denoiser.register_forward_pre_hook(lambda _, given: inputs.append(given[0].clone()))
        evaluator(policy, print)
        evaluator.close()
        assert len(inputs) == 6  # three chunks of two steps of the sampler
        return inputs[::2]

    given = first_inputs()
    for chunk, rows in enumerate(given):
        for row, seed in zip(rows, (100_000, 100_001), strict=True):
            expected = torch.randn(2, 16, 2, generator=named_generator(0, "rollout", seed, chunk))
            assert torch.equal(row, expected[0])
    other = first_inputs("evaluation.noise_seed=5")
    assert not any(torch.equal(one, two) for one, two in zip(given, other, strict=True))


@pytest.mark.parametrize(("dims", "what"), [((20, 2), "observation"), ((5, 7), "action")])
def test_demonstrations_of_another_size_are_refused(
    tiny_config: Build, tmp_path: Path, dims: tuple[int, int], what: str
) -> None:
    config = tiny_config("evaluation.episodes=1", *SHORT)
    with pytest.raises(UserError, match=rf"the {what} of environment .* the demonstrations have {max(dims)} numbers"):
        PolicyEvaluator(config, build_policy(config, *dims), tmp_path)


def test_damaged_weights_are_named(tiny_config: Build, tmp_path: Path) -> None:
    config = tiny_config("evaluation.episodes=1", "evaluation.workers=0", *SHORT)
    policy = build_policy(config, 5, 2)
    evaluator = PolicyEvaluator(config, policy, tmp_path)
    with torch.no_grad():
        next(policy.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="seed 100000, chunk 0"):
        evaluator(policy, print)
