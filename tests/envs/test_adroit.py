from __future__ import annotations

import numpy as np
import pytest
from gymnasium_robotics.envs.adroit_hand.adroit_door import AdroitHandDoorEnv

from policy_accel.data import read_episodes
from policy_accel.envs.adroit import HUMAN_DOORS, HUMAN_HIGH, HUMAN_LOW, AdroitDoor
from policy_accel.errors import UserError


@pytest.fixture(scope="module")
def door():
    return AdroitDoor()


@pytest.fixture(scope="module")
def human(shared_data):
    return read_episodes(shared_data / "adroit_door_human.npz")


def test_episodes_are_those_of_the_simulator(door):
    theirs = AdroitHandDoorEnv()
    actions = np.random.default_rng(0).uniform(-1.4, 1.4, (40, 28)).astype(np.float32)
    for seed in (0, 3):
        own, other = door.reset(seed=seed)[0], theirs.reset(seed=seed)[0]
        for action in actions:
            assert own["observation"].dtype == np.float32
            np.testing.assert_array_equal(own["observation"], other.astype(np.float32))
            own, *_, info = door.step(action)
            other, *_, told = theirs.step(action)
            assert info["is_success"] == bool(told["success"])


def test_reward_is_how_far_the_door_is_open(door):
    door.reset(seed=0)
    state = door.simulator.get_env_state()
    for angle, reward, terminated in (
        (0.0, 0.0, False),
        (0.675, 0.5, False),
        (1.34, 1.34 / 1.35, False),
        (1.4, 1, True),
    ):
        state["qpos"][28] = angle
        observation, info = door.reset(seed=0, options={"state": state})
        assert observation["observation"][28] == pytest.approx(angle)
        assert info["is_success"] == terminated
        _, given, ended, truncated, info = door.step(np.zeros(28))
        assert given == pytest.approx(reward, abs=0.02)
        assert ended == terminated == info["is_success"]
        assert not truncated
        assert info["door_angle"] == pytest.approx(angle, abs=0.03)


def test_a_state_is_found_from_an_observation(door):
    generator = np.random.default_rng(0)
    door.reset(seed=4)
    state = door.simulator.get_env_state()
    state["qpos"] = generator.uniform(-0.3, 0.3, 30)
    observation = door.reset(options={"state": state})[0]["observation"]
    again, _ = door.reset(seed=9, options={"observation": observation})
    np.testing.assert_allclose(again["observation"], observation, atol=1e-6)
    found = door.simulator.get_env_state()
    np.testing.assert_allclose(found["qpos"], state["qpos"], atol=1e-5)  # ARTz and the door's frame too
    np.testing.assert_allclose(found["door_body_pos"], state["door_body_pos"], atol=1e-5)


def test_human_demonstrations_replay_in_the_simulator(door, human):
    observations, actions = human.arrays["observation"], human.arrays["action"]
    errors, angles = [], []
    for number in range(0, 25, 2):
        begin, end = human.starts[number], human.episode_ends[number]
        observation, _ = door.reset(seed=0, options={"observation": observations[begin]})
        np.testing.assert_allclose(observation["observation"], observations[begin], atol=1e-6)
        np.testing.assert_allclose(
            door.simulator.get_env_state()["door_body_pos"],
            human.episode_metadata[number]["init_door_body_pos"],
            atol=1e-6,
        )
        seen = [observation["observation"]] + [door.step(action)[0]["observation"] for action in actions[begin:end]]
        gaps = np.abs(np.array(seen[:-1]) - observations[begin:end])[:, :38]
        errors.append([gaps[10].max(), np.median(gaps.max(1))])
        angles.append([np.max(seen, axis=0)[28], observations[begin:end, 28].max()])
    assert np.max(errors, axis=0)[0] < 0.02
    assert np.max(errors, axis=0)[1] < 0.06
    replayed, recorded = np.array(angles).T
    assert np.median(np.abs(replayed - recorded)) < 0.01
    # Most people let go of the door before 1.35 rad.
    np.testing.assert_array_equal(replayed > 1.35, recorded > 1.35)
    assert 3 <= (replayed > 1.35).sum() < len(angles) / 2


def test_human_starts_are_as_recorded(human):
    env = AdroitDoor("human")
    firsts = human.arrays["observation"][human.starts]
    drawn = np.array([env.reset(seed=seed)[0]["observation"] for seed in range(100)])
    lifts = []
    for seed in range(100):
        env.reset(seed=seed)
        state = env.simulator.get_env_state()
        lifts.append(state["qpos"][0])
        assert (HUMAN_DOORS[0] <= state["door_body_pos"]).all()
        assert (state["door_body_pos"] <= HUMAN_DOORS[1]).all()
    np.testing.assert_allclose(HUMAN_LOW[1:], firsts[:, :5].min(0), atol=1e-3)
    np.testing.assert_allclose(HUMAN_HIGH[1:], firsts[:, :5].max(0), atol=1e-3)
    np.testing.assert_allclose(drawn[:, :5].mean(0), firsts[:, :5].mean(0), atol=0.02)
    np.testing.assert_allclose(drawn[:, :5].std(0), firsts[:, :5].std(0), rtol=0.35)
    assert HUMAN_LOW[0] <= min(lifts) < max(lifts) <= HUMAN_HIGH[0]
    assert np.abs(drawn[:, 5:27]).max() == 0
    recorded = np.array([facts["init_door_body_pos"] for facts in human.episode_metadata])
    np.testing.assert_allclose(HUMAN_DOORS, [recorded.min(0), recorded.max(0)], atol=1e-3)


def test_pictures():
    env = AdroitDoor(render_mode="rgb_array", render_camera="vil_camera")
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (480, 480, 3)
    assert frame.dtype == np.uint8
    assert frame.std() > 10
    env.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda env: AdroitDoor("humans"), "start 'humans' is unknown; did you mean 'human'"),
        (lambda env: AdroitDoor(render_camera="vil"), "render_camera 'vil' is unknown"),
        (lambda env: env.reset(options={"state": [1.0]}), "dictionary of qpos, qvel and door_body_pos"),
        (lambda env: env.reset(options={"observation": [1.0]}), r"observation is .* shape \(39,\)"),
        (lambda env: env.step(np.full(28, np.nan)), "action is"),
    ],
)
def test_mistakes_are_one_sentence(door, make, message):
    with pytest.raises(UserError, match=message):
        make(door)
