from __future__ import annotations

import numpy as np
import pytest
from gymnasium_robotics.envs.fetch.pick_and_place import MujocoFetchPickAndPlaceEnv
from gymnasium_robotics.envs.fetch.push import MujocoFetchPushEnv

from policy_accel.envs.fetch import Fetch
from policy_accel.envs.fetch_expert import generate
from policy_accel.errors import UserError


@pytest.fixture(scope="module")
def push():
    return Fetch("push")


@pytest.fixture(scope="module")
def carry():
    return Fetch("pick_and_place")


@pytest.mark.parametrize(("task", "simulator"), [("push", MujocoFetchPushEnv), ("carry", MujocoFetchPickAndPlaceEnv)])
def test_episodes_are_those_of_the_simulator(task, simulator, request):
    ours, theirs = request.getfixturevalue(task), simulator()
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 4))
    for seed in (4, 11):
        own, other = ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0]
        for action in actions:
            assert set(own) == set(other)
            for key, value in own.items():
                assert value.dtype == np.float32
                np.testing.assert_array_equal(value, other[key].astype(np.float32))
            own, reward, terminated, _, info = ours.step(action)
            other, their_reward, *_, told = theirs.step(action)
            assert reward == their_reward + 1 == float(info["is_success"]) == told["is_success"] == float(terminated)


def test_a_start_and_goal_are_reset_exactly(carry):
    first, _ = carry.reset(seed=8)
    state, goal = carry.state(), carry.simulator.goal.copy()
    actions = np.random.default_rng(1).uniform(-1, 1, (25, 4))
    there = [carry.step(action)[0]["observation"] for action in actions]
    late = carry.state()
    again, _ = carry.reset(seed=5, options={"state": state, "goal": goal})
    for key, value in first.items():
        np.testing.assert_array_equal(again[key], value)
    np.testing.assert_array_equal([carry.step(action)[0]["observation"] for action in actions], there)
    last = carry.step(actions[0])[0]["observation"]
    carry.reset(seed=6, options={"state": late})
    np.testing.assert_allclose(carry.step(actions[0])[0]["observation"][:6], last[:6], atol=1e-3)


def test_fixed_goal_and_success(carry):
    env = Fetch("push", goal=[1.3, 0.7, 0.42469975])
    drawn = [env.reset(seed=seed)[0] for seed in range(3)]
    np.testing.assert_allclose([one["desired_goal"] for one in drawn], np.tile([1.3, 0.7, 0.42469975], (3, 1)))
    assert np.ptp([one["achieved_goal"][:2] for one in drawn], axis=0).min() > 0.01
    cube = drawn[2]["achieved_goal"]
    assert env.reset(seed=2, options={"goal": cube + np.array([0.049, 0, 0])})[1]["is_success"]
    assert not env.reset(seed=2, options={"goal": cube + np.array([0.051, 0, 0])})[1]["is_success"]


def test_pictures_leave_the_episode_alone_and_show_the_camera():
    # Drawing computes the simulator's positions anew, from which the gripper's next target is taken.
    plain, filmed = Fetch(), Fetch(render_mode="rgb_array", render_camera="external_camera_0")
    free = Fetch(render_mode="rgb_array")
    for env in (plain, filmed, free):
        env.reset(seed=1)
    for action in np.random.default_rng(0).uniform(-1, 1, (6, 4)):
        frames = [env.render() for env in (filmed, free)]
        observations = [env.step(action)[0]["observation"] for env in (plain, filmed)]
        np.testing.assert_array_equal(*observations)
    assert all(frame.shape == (480, 480, 3) and frame.std() > 10 for frame in frames)
    assert (frames[0] != frames[1]).mean() > 0.1
    filmed.close()
    free.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fetch("slide"), "task 'slide' is unknown"),
        (lambda: Fetch(goal=[1.0]), r"goal is .* shape \(3,\)"),
        (lambda: Fetch(render_camera="external_camera"), "did you mean 'external_camera_0'"),
        (lambda: Fetch().step([0, 0, 0]), "action is"),
        (lambda: Fetch().reset(options={"state": [0.0]}), "state is"),
        (lambda: generate(1, 0, task="slide"), "task 'slide' is unknown"),
        (lambda: generate(0, 0), "episodes is 0"),
    ],
)
def test_mistakes_are_one_sentence(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("task", ["push", "pick_and_place"])
def test_expert_succeeds_and_its_actions_replay(task, request):
    env = request.getfixturevalue("push" if task == "push" else "carry")
    tried = []
    made = generate(12, 0, task=task, progress=lambda *counts: tried.append(counts))
    assert tried[-1] == (12, 12)
    assert made.lengths.max() <= 100
    assert len(set(made.lengths)) > 5
    assert {key: values.shape[1:] for key, values in made.arrays.items()} == {
        "observation": (25,),
        "achieved_goal": (3,),
        "desired_goal": (3,),
        "action": (4,),
        "reward": (),
        "done": (),
        "sim_state": env.state().shape,
    }
    np.testing.assert_array_equal(np.flatnonzero(made.arrays["done"]) + 1, made.episode_ends)
    distances = np.linalg.norm(made.arrays["achieved_goal"] - made.arrays["desired_goal"], axis=1)
    inner = ~made.arrays["done"]
    np.testing.assert_array_equal(made.arrays["reward"][inner], (distances[1:] < 0.05)[inner[:-1]])
    for number in (0, 5):
        begin, end = made.starts[number], made.episode_ends[number]
        options = {"state": made.arrays["sim_state"][begin], "goal": made.arrays["desired_goal"][begin]}
        seed = made.episode_metadata[number]["seed"]
        for reset in ({"seed": seed}, {"seed": 0, "options": options}):
            observation, _ = env.reset(**reset)
            for row in range(begin, end):
                np.testing.assert_array_equal(made.arrays["observation"][row], observation["observation"])
                observation, reward, *_ = env.step(made.arrays["action"][row])
            assert reward == 1


def test_most_attempts_succeed(push, carry):
    from policy_accel.envs.fetch_expert import play_fetch

    assert np.mean([play_fetch(push, seed).success for seed in range(20)]) >= 0.95
    assert np.mean([play_fetch(carry, seed).success for seed in range(20)]) >= 0.9


def test_result_does_not_depend_on_workers():
    alone, shared = generate(3, 1, task="push"), generate(2, 1, task="push", workers=2)
    for key, values in shared.arrays.items():
        np.testing.assert_array_equal(values, alone.arrays[key][: shared.steps])
