from __future__ import annotations

import numpy as np
import pytest

from policy_accel.data import read_episodes
from policy_accel.envs import pusht_demonstrations
from policy_accel.envs.attempts import Attempt, start_seed
from policy_accel.envs.pusht import PushT
from policy_accel.envs.pusht_demonstrations import draw_demonstration_start, generate
from policy_accel.envs.pusht_expert import run_expert_episode
from policy_accel.envs.pusht_keypoints import block_keypoints
from policy_accel.envs.pusht_pushes import AGENT_RADIUS, outline_distance, to_block
from policy_accel.errors import UserError


def test_result_depends_on_the_seed_and_not_on_the_workers():
    seen = []
    alone = generate(3, 5, workers=1, progress=lambda done, total: seen.append((done, total)))
    shared = generate(3, 5, workers=2)
    other = generate(1, 6, workers=0)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert set(alone.arrays) == {"state", "action", "keypoint"}
    for key, values in alone.arrays.items():
        np.testing.assert_array_equal(values, shared.arrays[key])
        assert values.dtype == np.float32
    np.testing.assert_array_equal(alone.episode_ends, shared.episode_ends)
    assert not np.array_equal(other.arrays["state"][0], alone.arrays["state"][0])


def test_failed_attempts_are_left_out(monkeypatch):
    played = []

    def play(seed, index):
        played.append(index)
        episode = run_expert_episode(start_seed(seed, 0), start=[100, 100, 256, 262, np.pi / 4])
        arrays = episode.arrays | {"state": episode.arrays["state"] + index}
        return Attempt(arrays, index % 2 == 1)

    monkeypatch.setattr(pusht_demonstrations, "play_attempt", play)
    made = generate(2, 0, workers=1)
    assert played == [0, 1, 2, 3]
    assert [int(x) for x in made.arrays["state"][made.starts, 0]] == [101, 103]


def test_demonstrations_never_start_from_an_evaluation_seed():
    seeds = [start_seed(seed, index) for seed in range(20) for index in range(50)]
    assert min(seeds) >= 2**31
    assert max(seeds) < 2**32
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize(
    ("arguments", "message"), [((0, 0, 1), "episodes is 0"), ((1, -1, 1), "seed is -1"), ((1, 0, -2), "workers is -2")]
)
def test_bad_numbers_are_one_sentence(arguments, message):
    episodes, seed, workers = arguments
    with pytest.raises(UserError, match=message):
        generate(episodes, seed, workers=workers)


@pytest.fixture(scope="module")
def shipped(repository):
    return read_episodes(repository / "datasets" / "pusht_scripted.zarr.zip")


def test_shipped_key_points_belong_to_the_states(shipped):
    states = shipped.arrays["state"]
    np.testing.assert_array_equal(shipped.arrays["keypoint"], block_keypoints(states[:, 2:5]).astype(np.float32))
    assert len(shipped) == 500
    assert shipped.arrays["action"].shape == (shipped.steps, 2)


def test_shipped_actions_replay_to_success(shipped):
    env = PushT(render_mode=None)
    for index in range(0, len(shipped), 25):
        begin, end = shipped.starts[index], shipped.episode_ends[index]
        env.reset(seed=0, options={"state": shipped.arrays["state"][begin]})
        outcomes = [env.step(action)[2] for action in shipped.arrays["action"][begin:end]]
        assert outcomes == [False] * (end - begin - 1) + [True]


def test_shipped_episodes_start_where_the_command_starts_them(shipped):
    starts = shipped.arrays["state"][shipped.starts]
    drawn = np.array([draw_demonstration_start(0, index) for index in range(30)])
    matches = np.abs(starts[:40, None] - drawn).max(-1).min(0) < 1e-3
    assert matches.mean() > 0.9  # an attempt that failed is left out


def test_starts_are_of_three_kinds_and_free():
    for index in range(60):
        start = draw_demonstration_start(3, index)
        agent, block = start[:2].astype(float), start[2:].astype(float)
        if index % 3 == 0:
            np.testing.assert_allclose(start, PushT().reset(seed=start_seed(3, index))[0])
            continue
        gap = outline_distance(to_block(agent, block)[None])[0][0] - AGENT_RADIUS
        assert gap > 0.9
        assert (block[:2] > 0).all()
        assert (block[:2] < 512).all()
        if index % 3 == 1:
            assert np.abs(block[:2] - 256).max() < 5 * 30
