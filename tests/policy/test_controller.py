from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import policy_accel.envs  # noqa: F401
from policy_accel import Policy
from policy_accel.errors import UserError
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.run import train_run

Build = Callable[..., RobotConfig]
STEPS = 30


@pytest.fixture
def scored(tiny_config: Build) -> tuple[Path, list[dict[str, object]]]:
    """A run directory, and the rows of its evaluation, whose episodes ran alone."""
    config = tiny_config(
        "task.observation_normalization=limits",
        f"task.max_steps={STEPS}",
        "evaluation.episodes=2",
        "evaluation.slots=1",
        "evaluation.workers=0",
        "evaluation.videos=0",
        "sampling.steps=3",
    )
    trained = train_run(config)
    assert trained.evaluation is not None
    return Path(config.run_dir), trained.evaluation["episodes"]


def play(policy: Policy, seed: int) -> tuple[float, list[np.ndarray]]:
    environment = gymnasium.make("policy_accel/PushT-v0", observation="state", max_episode_steps=STEPS)
    observation, _ = environment.reset(seed=seed)
    policy.reset(seed)
    best, actions, over = 0.0, [], False
    while not over:
        actions.append(policy.act(observation))
        observation, reward, terminated, truncated, _ = environment.step(actions[-1])
        best, over = max(best, float(reward)), terminated or truncated
    return best, actions


def test_driving_an_environment_repeats_the_evaluation(scored: tuple[Path, list[dict[str, object]]]) -> None:
    run_dir, rows = scored
    policy = Policy.load(run_dir, device="cpu")
    for row in rows:
        best, actions = play(policy, int(str(row["seed"])))
        assert best == row["score"]
        assert len(actions) == row["length"]
    assert policy.latency.calls == 2 * -(-STEPS // 8)
    milliseconds = policy.latency.milliseconds()
    assert milliseconds is not None
    assert 0 < milliseconds["median"] <= milliseconds["p95"]


def test_a_chunk_is_predicted_only_when_the_last_one_is_used_up(scored: tuple[Path, list[dict[str, object]]]) -> None:
    policy = Policy.load(scored[0], device="cpu")
    for step in range(17):
        action = policy.act(np.full(5, step, dtype=np.float32))
        assert action.shape == (2,)
        assert policy.latency.calls == 1 + step // 8
    first = Policy.load(scored[0], device="cpu").act(np.zeros(5))
    policy.reset()
    assert np.array_equal(policy.act(np.zeros(5)), first)
    policy.reset(seed=3)
    assert not np.array_equal(policy.act(np.zeros(5)), first)


def test_a_warm_start_takes_fewer_steps_from_the_rest_of_the_plan(
    scored: tuple[Path, list[dict[str, object]]],
) -> None:
    def network_calls(policy: Policy, steps: int) -> list[int]:
        calls: list[int] = [0]
        policy.run.policy.denoiser.register_forward_hook(lambda *_: calls.__setitem__(-1, calls[-1] + 1))
        for step in range(steps):
            policy.act(np.full(5, step, dtype=np.float32))
            if step % 8 == 7:
                calls.append(0)
        return calls[:-1]

    cold = Policy.load(scored[0], device="cpu", sampling_steps=8)
    warm = Policy.load(scored[0], device="cpu", sampling_steps=8, warm_start=0.25)
    assert network_calls(cold, 24) == [8, 8, 8]
    assert network_calls(warm, 24) == [8, 2, 2]
    plan = torch.arange(16.0).reshape(1, 16, 1)
    assert warm._shifted(plan).flatten().tolist() == [*range(8, 16), *[15] * 8]


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        (np.zeros(4), r"shape \(4,\); this policy takes 5 numbers"),
        ({"pixels": np.zeros(3)}, "no entry 'state', which task field 'state' takes; it has pixels"),
    ],
)
def test_a_wrong_observation_is_named(
    scored: tuple[Path, list[dict[str, object]]], observation: object, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        Policy.load(scored[0], device="cpu").act(observation)


def test_wrong_settings_are_refused(scored: tuple[Path, list[dict[str, object]]]) -> None:
    with pytest.raises(UserError, match=r"warm_start=1.0 must lie between 0 and 1"):
        Policy.load(scored[0], device="cpu", warm_start=1.0)
    with pytest.raises(UserError, match="steps"):
        Policy.load(scored[0], device="cpu", sampling_steps=0)
    with pytest.raises(UserError, match="checkpoint"):
        Policy.load(scored[0], checkpoint="77")
