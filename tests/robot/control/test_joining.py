from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policy_accel import Policy
from policy_accel.errors import UserError
from policy_accel.policy.committed import Committed
from policy_accel.robot.control import driving
from policy_accel.robot.control.chunks import Request
from policy_accel.robot.control.clock import SimulatedClock
from policy_accel.robot.control.config import JOININGS, ControlConfig
from policy_accel.robot.control.joining import ChunkPredictor, ensembled, soft_weights

WINDOW = [{"state": np.full(5, 200.0 + step)} for step in range(2)]
LATER = [{"state": np.full(5, 300.0 - step)} for step in range(2)]
FIRST = 1  # step of the horizon that is executed first


def predictor(run_dir: Path, joining: str, **settings: str) -> ChunkPredictor:
    run = Policy.load(run_dir, device="cpu").run
    return ChunkPredictor(run.policy, run.sampler, run.config.training, ControlConfig(10, joining=joining, **settings))


def two_chunks(run_dir: Path, joining: str, latency_steps: int = 3, passed: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """What two chunks in a row say of the same steps: [15 - passed, 2] each, those of the second from its begin on."""
    predict = predictor(run_dir, joining)
    first = predict(Request(WINDOW, 0, seed=3))
    second = predict(Request(LATER, passed, latency_steps, seed=3, number=1))
    assert (first.predicted, second.tick, second.actions.shape) == (15, passed, (15, 2))
    return first.actions[passed:], second.actions[: 15 - passed]


def test_weights_are_those_of_real_time_chunking() -> None:
    """Black et al. 2025, equation 5, with H = 10, d = 2, s = 3."""
    horizon, frozen, passed = 10, 2, 3
    expected = []
    for step in range(horizon):
        c = (horizon - passed - step) / (horizon - passed - frozen + 1)
        soft = c * (math.exp(c) - 1) / (math.e - 1)
        expected.append(1.0 if step < frozen else soft if step < horizon - passed else 0.0)
    assert soft_weights(horizon, frozen, passed).tolist() == pytest.approx(expected)
    assert soft_weights(6, 5, 3).tolist() == [1, 1, 1, 0, 0, 0]  # more is frozen than there is
    assert soft_weights(4, 2, 9).tolist() == [0, 0, 0, 0]


def test_an_ensemble_is_that_of_act() -> None:
    """At each step the chunks that predict it, the oldest with weight 1, the others with exp(-0.01 i)."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(steps, 2, generator=generator) for steps in (2, 3, 5)]
    for step, mean in enumerate(ensembled(parts)):
        said = [part[step] for part in parts if step < len(part)]
        weights = np.exp(-0.01 * np.arange(len(said)))
        expected = sum(w * one for w, one in zip(weights / weights.sum(), said, strict=True))
        torch.testing.assert_close(mean, expected)


def test_what_is_committed_stays(run_dir: Path) -> None:
    """Gaps between two chunks: where the old one is executed meanwhile, and at its end."""
    gaps = {}
    for joining in JOININGS:
        old, new = two_chunks(run_dir, joining)
        gaps[joining] = np.abs(old - new).max(axis=1)
    assert gaps["receding"][:3].min() > 0.5
    np.testing.assert_allclose(gaps["inpainting"][:3], 0.0, atol=1e-3)
    assert gaps["inpainting"][5:].max() > 0.1
    assert len({tuple(gap) for gap in gaps.values()}) == len(JOININGS)


@pytest.mark.parametrize("joining", ["real_time_chunking", "inpainting"])
def test_a_chunk_is_bound_to_the_rest_of_the_one_before(
    joining: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, seen = predictor(run_dir, joining), []
    plan_of = predict.policy.plan

    def plan(*given: Any, committed: Committed | None, **how: Any) -> torch.Tensor:
        trajectory = plan_of(*given, committed=committed, **how)
        seen.append((committed, trajectory))
        return trajectory

    monkeypatch.setattr(predict.policy, "plan", plan)
    predict(Request(WINDOW, 0))
    predict(Request(LATER, 6, 3, number=1))
    (nothing, before), (committed, _) = seen
    assert nothing is None
    assert committed.guided == (joining == "real_time_chunking")
    torch.testing.assert_close(committed.actions[0, :10], before[0, 6:])
    assert torch.equal(committed.weights[0], soft_weights(16, FIRST + 3, 6))
    assert committed.weights[0].count_nonzero() == 10


def test_an_ensemble_takes_part_in_all_chunks_of_a_step(run_dir: Path) -> None:
    alone, together = predictor(run_dir, "receding"), predictor(run_dir, "ensembling")
    ticks = (0, 4, 13, 18)  # the first one has ended by then
    requests = [Request(WINDOW, tick, number=number) for number, tick in enumerate(ticks)]
    chunks = [alone(request) for request in requests]
    joined = [together(request) for request in requests][-1]
    said = [chunk.actions[18 - chunk.tick :] for chunk in chunks[1:]]
    expected = ensembled([torch.from_numpy(part) for part in said]).numpy()
    np.testing.assert_allclose(joined.actions, expected, rtol=1e-4)


def test_a_warm_start_takes_fewer_evaluations(run_dir: Path) -> None:
    predict, evaluations = predictor(run_dir, "warm_start"), [0]
    predict.policy.denoiser.register_forward_hook(lambda *_: evaluations.__setitem__(-1, evaluations[-1] + 1))
    for number in range(2):
        predict(Request(WINDOW, 8 * number, number=number))
        evaluations.append(0)
    assert evaluations == [3, 2, 0]
    with pytest.raises(UserError, match=r"warm_start=0.25 has no effect with joining=receding"):
        Policy.load(run_dir, device="cpu", warm_start=0.25).controller(20)


def test_robots_that_are_predicted_together_know_nothing_of_each_other(run_dir: Path) -> None:
    for joining in JOININGS:
        alone, together = predictor(run_dir, joining), predictor(run_dir, joining)
        rounds = [
            [Request(WINDOW, 0, slot=0), Request(LATER, 0, seed=1, slot=1)],
            [Request(LATER, 7, 2, number=1, slot=0), Request(WINDOW, 0, seed=2, slot=1)],  # another episode
            [Request(LATER, 15, 1, number=2, slot=0), Request(WINDOW, 8, 1, seed=2, number=1, slot=1)],
        ]
        for requests in rounds:
            chunks = together.chunks(requests)
            for request, chunk in itertools.zip_longest(requests, chunks):
                np.testing.assert_allclose(chunk.actions, alone(request).actions, rtol=1e-4, atol=1e-3)


def test_a_chunk_is_extrapolated_along_its_end(run_dir: Path) -> None:
    predict = predictor(run_dir, "receding", when_late="extrapolate")
    chunk = predict(Request(WINDOW, 0))
    assert (len(chunk.actions), chunk.predicted) == (15 + 8, 15)
    ends, ahead = chunk.actions[13:], np.arange(9)[:, None]
    low, high = (predict.policy.decoded(torch.full((2,), bound)).numpy() for bound in (-1.0, 1.0))
    line = (ends[1] + ahead * (ends[1] - ends[0])).clip(low, high)  # samples are bound too
    np.testing.assert_allclose(ends[1:], line, rtol=1e-4, atol=1e-2)


def test_damaged_weights_are_named(run_dir: Path) -> None:
    policy = Policy.load(run_dir, device="cpu")
    next(policy.run.policy.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="NaN or infinite action"):
        policy.controller(20)


def test_a_policy_drives_a_robot(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one observation all the time, an asynchronous controller and `act` predict the same first chunk."""
    policy = Policy.load(run_dir, device="cpu")
    monkeypatch.setattr(driving, "RealClock", SimulatedClock)  # a machine may be too busy for another
    policy.reset(4)
    observation = np.full(5, 250.0)
    expected = [policy.act(observation) for _ in range(8)]
    with policy.controller(20, mode="async") as controller:
        for _ in range(2):
            controller.reset(4)
            actions = []
            for _ in range(8):
                actions.append(controller.act({"state": observation}))
                controller.wait()
            np.testing.assert_allclose(actions, expected, rtol=1e-5)
        with pytest.raises(UserError, match=r"shape \(4,\); this policy takes 5 numbers"):
            controller.act(np.zeros(4))
    assert len(policy.latency.seconds) >= 2
