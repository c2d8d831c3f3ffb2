"""Frames that no policy sees are not drawn, and everything else is as when all are drawn, in the real simulators."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import policy_accel.envs  # noqa: F401  registers the environments
from policy_accel.envs.pusht import PushT
from policy_accel.envs.robosuite_demonstrations import play
from policy_accel.envs.robosuite_env import Robosuite
from policy_accel.evaluation.environments import EnvironmentSpec
from policy_accel.evaluation.episode import Episode

CAMERAS = ["agentview", "robot0_eye_in_hand"]
SIZE = 16


class Count:
    """Counts the calls of a method, and lets them through."""

    def __init__(self, monkeypatch, owner, name):
        self.calls = 0
        original = getattr(owner, name)

        def counted(*arguments, **options):
            self.calls += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)


def rollout(environment, spec, seed, actions, chunk, video=None):
    """What the policy sees before each chunk, and the row of the episode, for the first of some actions."""
    episode = Episode(environment, spec, seed, video)
    episode.reset()
    seen = [episode.observation()]
    for first in range(0, len(actions), chunk):
        if episode.advance(actions[first : first + chunk]):
            return seen, episode.finish()
        seen.append(episode.observation())
    raise AssertionError("the actions end before the episode")


def all_drawn(environment, spec, seed, actions, chunk):
    """The same from a plain loop over the environment, with every frame drawn, and its score and length."""
    steps, rewards = [environment.reset(seed=seed)[0]], []
    for action in actions[: spec.max_steps]:
        observation, reward, terminated, _, _ = environment.step(action)
        steps.append(observation)
        rewards.append(reward)
        if terminated:
            break
    steps = [steps[0]] * (spec.n_obs_steps - 1) + steps
    seen = [steps[now : now + spec.n_obs_steps] for now in range(0, len(rewards), chunk)]
    return (
        [{key: np.stack([step[key] for step in part]) for key in part[0]} for part in seen],
        max(rewards),
        len(rewards),
    )


def assert_same(found, expected):
    assert len(found) == len(expected) > 1
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.keys() == theirs.keys()
        for key, values in theirs.items():
            assert mine[key].dtype == values.dtype
            np.testing.assert_array_equal(mine[key], values)


@pytest.mark.parametrize(
    ("n_obs_steps", "chunk", "max_steps", "drawings"),
    [
        (2, 8, 20, 1 + 2 + 2 + 0),  # the last chunk reaches max_steps: nobody sees what follows
        (1, 8, 24, 1 + 1 + 1 + 0),
        (3, 3, 11, 1 + 3 + 3 + 3 + 0),
        (5, 2, 8, 1 + 2 + 2 + 2 + 0),
    ],
)
def test_pusht(monkeypatch, n_obs_steps, chunk, max_steps, drawings):
    spec = EnvironmentSpec("policy_accel/PushT-v0", {"observation": "image"}, max_steps, n_obs_steps)
    actions = np.random.default_rng(0).uniform(100, 400, (24, 2))
    environment = gymnasium.make(spec.id, **spec.kwargs)
    drawn = Count(monkeypatch, PushT, "_draw")
    for seed in (3, 100_000):  # the second episode begins after one that ended with frames unwanted
        drawn.calls = 0
        seen, result = rollout(environment, spec, seed, actions, chunk)
        assert drawn.calls == drawings
        expected, score, length = all_drawn(PushT(observation="image"), spec, seed, actions, chunk)
        assert_same(seen, expected)
        assert (result.score, result.length) == (score, length)


def test_a_film_shows_every_step(tmp_path):
    spec = EnvironmentSpec("policy_accel/PushT-v0", {"observation": "image"}, max_steps=9, n_obs_steps=1)
    environment = gymnasium.make(spec.id, **spec.kwargs)
    pictures = []

    class Film:
        path = tmp_path / "film.mp4"
        add = staticmethod(pictures.append)

        def finish(self):
            pass

    episode = Episode(environment, spec, 5, None)
    episode.video = Film()
    episode.reset()
    actions = np.random.default_rng(1).uniform(100, 400, (9, 2))
    assert episode.advance(actions)
    plain = PushT()
    plain.reset(seed=5)
    expected = [plain.render()]
    for action in actions:
        plain.step(action)
        expected.append(plain.render())
    np.testing.assert_array_equal(pictures, expected)


@pytest.fixture(scope="module")
def lifting():
    """Seed and actions of an episode that ends in success, with more actions to fill its last chunk."""
    environment = Robosuite("lift")
    episode = play(environment, "lift", 4)
    environment.close()
    assert episode.success
    return episode.facts["seed"], np.concatenate([episode.arrays["action"], np.zeros((7, 7), np.float32)])


@pytest.fixture(scope="module")
def lift():
    environment = Robosuite("lift", cameras=CAMERAS, image_size=SIZE)
    yield environment
    environment.close()


def test_robosuite(monkeypatch, lift, lifting):
    """An episode with success, in chunks of 8 and two observations."""
    from robosuite.utils.binding_utils import MjSim

    (seed, actions), spec = lifting, EnvironmentSpec("policy_accel/Robosuite-v0", {}, max_steps=400, n_obs_steps=2)
    expected, score, length = all_drawn(lift, spec, seed, actions, 8)
    drawn = Count(monkeypatch, MjSim, "render")
    seen, result = rollout(lift, spec, seed, actions, 8)
    assert_same(seen, expected)
    assert (result.score, result.length, result.success) == (score, length, True) == (1.0, len(actions) - 7, True)
    assert drawn.calls == len(CAMERAS) * (1 + sum(step % 8 >= 6 for step in range(length)))
    assert not np.array_equal(seen[-1]["agentview_image"][0], seen[-1]["agentview_image"][1])
