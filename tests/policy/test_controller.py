from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import policy_accel.envs  # noqa: F401
from policy_accel import Policy
from policy_accel.envs.pusht import PushT
from policy_accel.errors import UserError
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.planner import shifted
from policy_accel.policy.track import ROBOT
from policy_accel.run_sampling import TunedSampling

Build = Callable[..., RobotConfig]
STEPS = 30


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[list[np.ndarray]]:
    """The actions of every Push-T episode of this process, as the environment takes them."""
    episodes: list[list[np.ndarray]] = []
    reset, step = PushT.reset, PushT.step

    def begin(self: PushT, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        episodes.append([])
        return reset(self, seed=seed, options=options)

    def note(self: PushT, action: np.ndarray) -> Any:
        episodes[-1].append(np.array(action))
        return step(self, action)

    monkeypatch.setattr(PushT, "reset", begin)
    monkeypatch.setattr(PushT, "step", note)
    return episodes


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
    trained = ROBOT.train(config)
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


def test_driving_an_environment_repeats_the_evaluation(
    executed: list[list[np.ndarray]], scored: tuple[Path, list[dict[str, object]]]
) -> None:
    run_dir, rows = scored
    evaluated = [np.array(actions) for actions in executed if actions]
    policy = Policy.load(run_dir, device="cpu")
    for row, expected in zip(rows, evaluated, strict=True):
        best, actions = play(policy, int(str(row["seed"])))
        assert best == row["score"]
        assert len(actions) == row["length"]
        np.testing.assert_allclose(np.array(actions), expected, rtol=1e-6, atol=1e-4)
        chunks = [expected[first : first + 8] for first in range(0, 24, 8)]
        assert min(np.abs(one - two).max() for one, two in itertools.pairwise(chunks)) > 1.0
    assert len(policy.latency.seconds) == 2 * -(-STEPS // 8)
    milliseconds = policy.latency.milliseconds()
    assert milliseconds is not None
    assert 0 < milliseconds["median"] <= milliseconds["p95"]


def test_a_chunk_is_predicted_only_when_the_last_one_is_used_up(scored: tuple[Path, list[dict[str, object]]]) -> None:
    policy = Policy.load(scored[0], device="cpu")
    for step in range(17):
        action = policy.act(np.full(5, step, dtype=np.float32))
        assert action.shape == (2,)
        assert len(policy.latency.seconds) == 1 + step // 8
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
    started: list[object] = []
    network = warm.run.policy
    plan_of = network.plan

    def plan_and_note(*arguments: object, **options: object) -> torch.Tensor:
        started.append(options["start"])
        started.append(plan_of(*arguments, **options))  # type: ignore[arg-type]
        assert isinstance(started[-1], torch.Tensor)
        return started[-1]

    network.plan = plan_and_note  # type: ignore[method-assign]
    warm.reset()
    for step in range(9):
        warm.act(np.full(5, step, dtype=np.float32))
    nothing, first, previous, _ = started
    assert nothing is None
    assert isinstance(first, torch.Tensor)
    assert isinstance(previous, torch.Tensor)
    assert torch.equal(previous[:, :8], first[:, 8:])
    assert torch.equal(previous[:, 8:], first[:, -1:].expand(-1, 8, -1))
    plan = torch.arange(16.0).reshape(1, 16, 1)
    assert shifted(plan, 8).flatten().tolist() == [*range(8, 16), *[15] * 8]


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        (np.zeros(4), r"shape \(4,\); this policy takes 5 numbers"),
        ({"pixels": np.zeros(3)}, "no entry 'state', which task field 'state' takes; it has pixels"),
        (np.array([0.0, 1.0, np.nan, 3.0, 4.0]), "number 2 of the observation is not finite"),
    ],
)
def test_a_wrong_observation_is_named(
    scored: tuple[Path, list[dict[str, object]]], observation: object, said: str
) -> None:
    policy = Policy.load(scored[0], device="cpu")
    with pytest.raises(UserError, match=said):
        policy.act(observation)
    policy.act(np.zeros(5))
    with pytest.raises(UserError, match=said):  # not only the first one of an episode
        policy.act(observation)


def test_a_driver_may_use_its_buffer_again(scored: tuple[Path, list[dict[str, object]]]) -> None:
    fresh, reused = (Policy.load(scored[0], device="cpu") for _ in range(2))
    buffer = np.zeros(5, dtype=np.float32)
    for step in range(17):
        buffer[:] = 20.0 * step
        assert np.array_equal(reused.act(buffer), fresh.act(np.full(5, 20.0 * step, dtype=np.float32)))


def test_damaged_weights_are_named(scored: tuple[Path, list[dict[str, object]]]) -> None:
    policy = Policy.load(scored[0], device="cpu")
    next(policy.run.policy.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="NaN or infinite action"):
        policy.act(np.zeros(5))


def test_the_times_of_the_steps(
    scored: tuple[Path, list[dict[str, object]]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked for, or tuned, which is said."""

    def told(**how: Any) -> tuple[list[int], str]:
        """What the network is told of the times of a chunk, and what is printed."""
        policy, seen = Policy.load(scored[0], device="cpu", **how), list[int]()
        policy.run.policy.denoiser.register_forward_pre_hook(lambda _, given: seen.append(int(given[1][0])))
        policy.act(np.zeros(5))
        return seen, capsys.readouterr().err

    capsys.readouterr()
    assert told(sampling_times=[99, 25]) == ([99, 25], "")
    TunedSampling(4, 2, {2: {"sampler": "ddim", "times": [99, 20]}}).write(scored[0])
    assert told() == ([99, 20], "Sampled as tuned at step 4: ddim at times [99, 20] (sampling.yaml).\n")
    assert told(sampling_times=[99, 25]) == ([99, 25], "")
    assert told(untuned=True) == ([99, 66, 32], "")
    assert told(sampling_steps=2)[0] == [99, 20]
    assert told(sampling_steps=2, untuned=True) == ([99, 49], "")
    with pytest.raises(UserError, match="steps=2 has no effect"):
        Policy.load(scored[0], sampling_steps=2, sampling_times=[99, 25])


def test_wrong_settings_are_refused(scored: tuple[Path, list[dict[str, object]]]) -> None:
    with pytest.raises(UserError, match=r"warm_start=1.0 must lie between 0 and 1"):
        Policy.load(scored[0], device="cpu", warm_start=1.0)
    with pytest.raises(UserError, match="steps"):
        Policy.load(scored[0], device="cpu", sampling_steps=0)
    with pytest.raises(UserError, match="checkpoint"):
        Policy.load(scored[0], checkpoint="77")
