from __future__ import annotations

import numpy as np
import pytest

from policy_accel.envs.pusht import PushT
from policy_accel.envs.pusht_expert import PushTExpert, run_expert_episode


@pytest.fixture(scope="module")
def episodes():
    env = PushT(render_mode=None)
    return [run_expert_episode(seed, env=env) for seed in range(200, 212)]


def test_expert_covers_the_goal(episodes):
    assert sum(episode.success for episode in episodes) >= 11
    assert np.mean([len(episode.arrays["state"]) for episode in episodes]) < 160


def test_targets_are_near_the_agent_and_never_jump(episodes):
    for episode in episodes:
        lead = np.linalg.norm(episode.arrays["action"] - episode.arrays["state"][:, :2], axis=1)
        assert lead.max() < 40
        assert episode.arrays["action"].min() >= 0
        assert episode.arrays["action"].max() <= 512
        assert np.linalg.norm(np.diff(episode.arrays["action"], axis=0), axis=1).max() < 75


def test_the_agent_keeps_moving(episodes):
    for episode in episodes:
        speed = np.linalg.norm(np.diff(episode.arrays["state"][:, :2], axis=0), axis=1)
        rests = np.convolve(speed < 1, np.ones(5), mode="valid")
        assert rests.max() < 5


def test_an_episode_is_a_function_of_its_seed(episodes):
    again = run_expert_episode(203)
    np.testing.assert_array_equal(again.arrays["state"], episodes[3].arrays["state"])
    np.testing.assert_array_equal(again.arrays["action"], episodes[3].arrays["action"])


def test_the_expert_sees_nothing_but_the_state():
    env = PushT(render_mode=None)
    state, _ = env.reset(seed=205)
    expert, recorded = PushTExpert(), run_expert_episode(205)
    for action in recorded.arrays["action"][:40]:
        np.testing.assert_array_equal(expert.act(state), action)
        state, *_ = env.step(action)


def test_the_expert_frees_an_agent_that_starts_inside_the_block():
    start = np.array([256.0, 300.0, 256.0, 256.0, 0.0])
    episode = run_expert_episode(1, start=start)
    np.testing.assert_array_equal(episode.arrays["state"][0], start.astype(np.float32))
    assert episode.success
