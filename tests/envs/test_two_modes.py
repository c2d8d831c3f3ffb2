"""The two-mode toy: its distribution, its score and its calibration, each against an independent reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policy_accel.envs.two_modes import TwoModes, generate, mode_probability_error
from policy_accel.errors import UserError
from policy_accel.evaluation.environments import EnvironmentSpec
from policy_accel.evaluation.episode import EpisodeResult
from policy_accel.evaluation.rollouts import RolloutPool
from policy_accel.evaluation.statistics import summarize


def clean(observation: np.ndarray, side: int) -> list[tuple[float, float]]:
    """The formula of the module, number by number."""
    second = float(observation[1])
    return [
        (2 * h / 15 - 1 + 0.3 * second, side * (1 + 0.3 * math.tanh(second)) * math.sin(math.pi * h / 15))
        for h in range(16)
    ]


def play(env: TwoModes, chunk: np.ndarray) -> tuple[float, dict]:
    """The last reward and info of a chunk; nothing is rewarded before it."""
    for step, action in enumerate(chunk):
        _, reward, terminated, truncated, info = env.step(action)
        assert terminated == (step == 15)
        assert not truncated
        assert step == 15 or (reward, info) == (0.0, {"is_success": False})
    return reward, info


def test_gymnasium_accepts_the_environment() -> None:
    with pytest.warns(UserWarning, match="Box"):  # its bounds are infinite
        check_env(TwoModes(), skip_render_check=True)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize(
    ("off", "score", "success"),
    [(0.0, 1.0, True), (0.05, 1.0, True), (0.09, 1 - 0.04 / 0.45, True), (0.275, 0.5, False), (0.9, None, False)],
)
def test_the_score_falls_with_the_distance_to_the_nearer_mode(
    side: int, off: float, score: float | None, success: bool
) -> None:
    env = TwoModes()
    for seed in range(4):
        observation, _ = env.reset(seed=seed)
        chunk = np.array(clean(observation, side)) + off * np.random.default_rng(seed).choice([-1, 1], (16, 2))
        modes = [np.array(clean(observation, each)) for each in (1, -1)]
        distances = [math.sqrt(((chunk - each) ** 2).mean()) for each in modes]
        expected = min(1.0, max(0.0, (0.5 - min(distances)) / 0.45))
        reward, info = play(env, chunk)
        assert reward == pytest.approx(expected)
        assert reward == pytest.approx(expected if score is None else score)
        assert info["is_success"] is success
        assert info["metrics"]["distance"] == pytest.approx(min(distances))
        assert info["metrics"]["plus"] == (distances[0] < distances[1])
        assert info["metrics"]["plus_probability"] == pytest.approx(1 / (1 + math.exp(-3 * float(observation[0]))))


def test_between_the_modes_there_is_hardly_a_score() -> None:
    env = TwoModes()
    scores = []
    for seed in range(200):
        observation, _ = env.reset(seed=seed)
        scores.append(play(env, (np.array(clean(observation, 1)) + clean(observation, -1)) / 2)[0])
    assert np.mean(scores) < 0.15


def test_episodes_follow_from_their_seed_and_observations_are_normal() -> None:
    env, again = TwoModes(), TwoModes()
    seen = np.array([env.reset(seed=seed)[0] for seed in range(4000)])
    np.testing.assert_array_equal(again.reset(seed=7)[0], seen[7])
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(np.cov(seen.T), np.eye(2), atol=0.07)


def test_demonstrations_have_the_distribution_of_the_toy() -> None:
    episodes = generate(3000, 1)
    observations = episodes.arrays["observation"].reshape(3000, 16, 2)
    chunks = episodes.arrays["action"].reshape(3000, 16, 2).astype(np.float64)
    assert (observations == observations[:, :1]).all()
    modes = np.array([[clean(row, side) for side in (1, -1)] for row in observations[:, 0]])
    away = chunks[:, None] - modes
    nearest = (away**2).mean((2, 3)).argmin(1)
    noise = away[np.arange(3000), nearest]
    assert noise.std() == pytest.approx(0.05, rel=0.02)
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.005)
    probability = 1 / (1 + np.exp(-3 * observations[:, 0, 0].astype(np.float64)))
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        rows = (low <= probability) & (probability < low + 0.2)
        deviation = math.sqrt(0.25 / rows.sum())
        assert (nearest == 0)[rows].mean() == pytest.approx(probability[rows].mean(), abs=3.5 * deviation)


def test_fewer_demonstrations_are_the_first_ones() -> None:
    seen = []
    few, many = generate(3, 5, workers=4), generate(6, 5, progress=lambda *counts: seen.append(counts))
    for key, values in few.arrays.items():
        np.testing.assert_array_equal(values, many.arrays[key][: few.steps])
    assert seen[-1] == (6, 6)
    assert not np.array_equal(generate(3, 6).arrays["action"], few.arrays["action"])
    assert all(facts["seed"] >= 2**31 for facts in many.episode_metadata)


def shown(probability: np.ndarray, taken: np.ndarray, seed: int = 0) -> list[EpisodeResult]:
    """Episodes of a policy that takes the side + with probability `taken` where `probability` is right."""
    plus = np.random.default_rng(seed).random(len(taken)) < taken
    return [
        EpisodeResult(number, 1.0, True, 16, metrics={"plus": float(side), "plus_probability": p})
        for number, (p, side) in enumerate(zip(probability, plus, strict=True))
    ]


def test_the_calibration_finds_the_true_error() -> None:
    """Of policies whose probability is another logistic line than the right one; q and so the error are known."""
    o = np.random.default_rng(0).standard_normal(20_000)
    probability = 1 / (1 + np.exp(-3 * o))
    for offset, slope in ((0.0, 3.0), (0.8, 3.0), (0.0, 1.0), (-0.5, 8.0)):
        taken = 1 / (1 + np.exp(-offset - slope * o))
        found = mode_probability_error(shown(probability, taken))
        assert found == pytest.approx(np.abs(taken - probability).mean(), abs=0.01)


def test_one_side_for_sure_is_an_error_of_the_other_sides_probability() -> None:
    o = np.random.default_rng(1).standard_normal(500)
    probability = 1 / (1 + np.exp(-3 * o))
    always = mode_probability_error(shown(probability, np.ones(500)))
    likelier = mode_probability_error(shown(probability, (o > 0).astype(float)))
    assert always == pytest.approx((1 - probability).mean(), abs=0.01)
    assert likelier == pytest.approx(np.minimum(probability, 1 - probability).mean(), abs=0.01)


def test_chance_alone_shows_the_stated_error() -> None:
    found = []
    for seed in range(60):
        o = np.random.default_rng(seed).standard_normal(400)
        probability = 1 / (1 + np.exp(-3 * o))
        found.append(mode_probability_error(shown(probability, probability, seed + 1000)))
    assert np.mean(found) == pytest.approx(0.4 / math.sqrt(400), rel=0.25)


def test_an_evaluation_reports_the_calibration_and_others_do_not() -> None:
    spec = EnvironmentSpec("policy_accel/TwoModes-v0", {}, max_steps=16, n_obs_steps=1)

    def act(observations, seeds, chunk_index):
        return np.array([clean(observation, 1) for observation in observations[:, 0]])

    results = RolloutPool(spec, slots=20, workers=0).run(act, range(40))
    summary = summarize(results)
    assert (summary["score"], summary["success_rate"], summary["mean_length"]) == (1.0, 1.0, 16)
    assert summary["metrics"]["plus"] == 1
    assert summary["metrics"]["mode_probability_error"] == mode_probability_error(results) > 0.2
    assert "metrics" not in summarize([EpisodeResult(0, 1.0, True, 3)])


def test_a_picture_shows_the_actions() -> None:
    env = TwoModes()
    observation, _ = env.reset(seed=0)
    before = env.render()
    assert before.shape == (256, 256, 3)
    env.step(clean(observation, 1)[0])
    red = (env.render() == (200, 30, 30)).all(-1)
    assert not (before == (200, 30, 30)).all(-1).any()
    row, column = np.argwhere(red).mean(0)
    x, y = clean(observation, 1)[0]
    assert (column, row) == pytest.approx((128 + 48 * x, 128 - 48 * y), abs=1)
    assert TwoModes(render_mode=None).render() is None


@pytest.mark.parametrize("action", [[1.0], [math.nan, 0.0]])
def test_a_bad_action_is_a_sentence(action) -> None:
    env = TwoModes()
    env.reset(seed=0)
    with pytest.raises(UserError, match="two finite numbers"):
        env.step(action)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 0, 1), "episodes is 0"), ((1, -1, 1), "seed is -1"), ((1, 0, -1), "workers is -1")],
)
def test_bad_numbers_are_a_sentence(arguments, message) -> None:
    episodes, seed, workers = arguments
    with pytest.raises(UserError, match=message):
        generate(episodes, seed, workers=workers)
