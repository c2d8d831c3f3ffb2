from __future__ import annotations

import numpy as np
import pytest
from gymnasium_robotics.envs.franka_kitchen.kitchen_env import OBS_ELEMENT_GOALS, OBS_ELEMENT_INDICES, KitchenEnv

from policy_accel.envs.kitchen import COMPLETE, Kitchen
from policy_accel.errors import UserError


@pytest.fixture(scope="module")
def kitchen():
    return Kitchen()


def done(env, *tasks):
    """The start with some subtasks already done, as a state."""
    robot = env.simulator.robot_env
    qpos = robot.init_qpos.copy()
    for task in tasks:
        qpos[OBS_ELEMENT_INDICES[task]] = OBS_ELEMENT_GOALS[task]
    return np.concatenate((qpos, np.zeros(env.simulator.model.nv)))


def test_episodes_are_those_of_the_simulator(kitchen):
    theirs = KitchenEnv(tasks_to_complete=list(COMPLETE))
    actions = np.random.default_rng(0).uniform(-1, 1, (15, 9))
    for seed in (0, 3):
        own, other = kitchen.reset(seed=seed)[0], theirs.reset(seed=seed)[0]
        for action in actions:
            assert set(own) == {"observation"} | {
                f"{goal}_goal.{task}" for goal in ("achieved", "desired") for task in COMPLETE
            }
            np.testing.assert_array_equal(own["observation"], other["observation"].astype(np.float32))
            for task in COMPLETE:
                np.testing.assert_array_equal(own[f"achieved_goal.{task}"], np.float32(other["achieved_goal"][task]))
                np.testing.assert_array_equal(own[f"desired_goal.{task}"], np.float32(other["desired_goal"][task]))
            assert kitchen.observation_space.contains(own)
            own, *_ = kitchen.step(action)
            other, *_ = theirs.step(action)


def test_reward_is_the_share_of_the_subtasks(kitchen):
    kitchen.reset(seed=0)
    for tasks in ((), COMPLETE[:1], COMPLETE[1:3], COMPLETE):
        _, info = kitchen.reset(seed=0, options={"state": done(kitchen, *tasks)})
        assert info["completed"] == []
        _, reward, terminated, truncated, info = kitchen.step(np.zeros(9))
        assert set(info["completed"]) == set(tasks)
        assert reward == len(tasks) / 4
        assert terminated == info["is_success"] == (len(tasks) == 4)
        assert not truncated
        assert info["metrics"] == {f"p{number}": float(len(tasks) >= number) for number in range(1, 5)}


def test_what_was_done_stays_done(kitchen):
    kitchen.reset(seed=0, options={"state": done(kitchen, "microwave")})
    assert kitchen.step(np.zeros(9))[1] == 0.25
    start = done(kitchen)
    kitchen.simulator.robot_env.set_state(start[:30], start[30:])
    _, reward, *_, info = kitchen.step(np.zeros(9))
    assert reward == 0.25
    assert info["completed"] == ["microwave"]
    assert kitchen.reset(seed=0)[1]["completed"] == []
    assert kitchen.step(np.zeros(9))[1] == 0


def test_fewer_subtasks_than_named_can_be_needed():
    env = Kitchen(tasks=list(OBS_ELEMENT_GOALS), needed=2)
    env.reset(seed=0, options={"state": done(env, "bottom burner", "hinge cabinet", "kettle")})
    _, reward, terminated, _, info = env.step(np.zeros(9))
    assert (reward, terminated) == (1.0, True)
    assert info["metrics"] == {"p1": 1.0, "p2": 1.0}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Kitchen(tasks=["microwav"]), "kitchen subtask 'microwav' is unknown; did you mean 'microwave'"),
        (lambda: Kitchen(tasks=["kettle", "kettle"]), "each once"),
        (lambda: Kitchen(needed=5), "needed is 5; give a number from 1 to 4"),
        (lambda: Kitchen(render_camera="left"), "render_camera 'left' is unknown; did you mean 'left_cap'"),
    ],
)
def test_mistakes_are_one_sentence(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_bad_steps_and_resets_are_one_sentence(kitchen):
    with pytest.raises(UserError, match="action is"):
        kitchen.step(np.zeros(8))
    with pytest.raises(UserError, match="no option 'start'"):
        kitchen.reset(options={"start": 1})
    with pytest.raises(UserError, match="state is"):
        kitchen.reset(options={"state": np.zeros(30)})


def test_picture():
    env = Kitchen(render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (480, 480, 3)
    assert frame.std() > 10
    env.close()
