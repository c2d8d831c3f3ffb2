from __future__ import annotations

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policy_accel.envs.robosuite_absolute import absolute_actions
from policy_accel.envs.robosuite_env import Robosuite
from policy_accel.envs.robosuite_tasks import default_env_args, find_task
from policy_accel.errors import UserError


def rollout(environment: Robosuite, seed: int, actions: np.ndarray) -> np.ndarray:
    """The simulator's states after a reset from a seed and after each action."""
    environment.reset(seed=seed)
    states = [environment.sim_state()]
    for action in actions:
        environment.step(action)
        states.append(environment.sim_state())
    return np.array(states)


def draw_actions(seed: int, steps: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, 7))


def test_seeds_fix_the_episode_and_leave_the_global_generator_alone(lift):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = rollout(lift, 5, draw_actions(0, steps=3))
    lift.reset()
    np.testing.assert_array_equal(rollout(lift, 5, draw_actions(0, steps=3)), first)
    assert not np.array_equal(rollout(lift, 2**32 - 1, draw_actions(0, steps=3)), first)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    with pytest.raises(UserError, match=f"seed is {2**32}"):
        lift.reset(seed=2**32)


def test_gymnasium_accepts_it(lift):
    check_env(lift, skip_render_check=True)
    registered = gymnasium.make("policy_accel.envs:policy_accel/Robosuite-v0", task="can")
    assert registered.observation_space["object"].shape == (14,)
    registered.close()


def test_lifting_the_cube_is_success(lift):
    """The cube held in the air is success, with reward 1 and the end of the episode; on the table it is not."""
    observation, info = lift.reset(seed=0)
    assert info == {"is_success": False}
    assert {"object", "robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"} <= set(observation)
    np.testing.assert_allclose(
        observation["object"][:3] - observation["robot0_eef_pos"], observation["object"][7:], atol=1e-6
    )
    _, reward, terminated, truncated, info = lift.step(np.zeros(7))
    assert (reward, terminated, truncated, info["is_success"]) == (0.0, False, False, False)
    state = lift.sim_state()
    state[1 + 9 + 2] += 0.3
    _, info = lift.reset(seed=0, options={"state": state})
    assert info["is_success"]
    _, reward, terminated, _, info = lift.step(np.zeros(7))
    assert (reward, terminated, info["is_success"]) == (1.0, True, True)


def test_a_recorded_state_and_model_are_restored(lift):
    """As robomimic's reset_to, from another episode's model: the cube has the recorded size, also after more resets."""
    actions = draw_actions(1, steps=6)
    lift.reset(seed=11)
    for action in actions[:3]:
        lift.step(action)
    state, model, size = lift.sim_state(), lift.model_xml(), lift.robosuite.sim.model._model.geom("cube_g0").size.copy()
    assert 'file="robosuite/models/' in model
    recorded = {"state": state, "model": model}

    def replay(seed):
        observation = lift.reset(seed=seed, options=recorded)[0]
        np.testing.assert_array_equal(lift.sim_state(), state)
        np.testing.assert_array_equal(lift.robosuite.sim.model._model.geom("cube_g0").size, size)
        assert lift.model_xml() == model
        after = [lift.step(action)[0]["object"] for action in actions[3:]]
        return observation["object"], after

    first, second = replay(12), replay(13)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    # afterwards an ordinary reset is an ordinary reset
    states = rollout(lift, 11, actions)
    np.testing.assert_array_equal(states[3], state)
    without_model = lift.reset(seed=11, options={"state": state})[0]
    np.testing.assert_array_equal(without_model["object"], first[0])


def test_absolute_actions_follow_the_relative_ones(lift):
    """Replayed by the absolute controller, the goals of relative actions give the same motion."""
    actions = draw_actions(4, steps=30)
    actions[:, 3:6] *= 0.3
    observation, _ = lift.reset(seed=21)
    states, path, goals = [], [observation["robot0_eef_pos"]], []
    for action in actions:
        states.append(lift.sim_state())
        path.append(lift.step(action)[0]["robot0_eef_pos"])
        goals.append(np.append(lift.goals()[0], action[6]))
    absolute = absolute_actions(lift, np.array(states), actions)
    np.testing.assert_array_equal(absolute, goals)
    follower = Robosuite("lift", actions="absolute")
    assert follower.action_space.contains(absolute[0].astype(np.float32))
    follower.reset(seed=21)
    followed = [follower.step(action)[0]["robot0_eef_pos"] for action in absolute]
    np.testing.assert_allclose(followed, path[1:], atol=1e-6)
    assert np.abs(path[-1] - path[0]).max() > 0.02
    follower.close()


def test_two_arms_have_absolute_actions_in_the_frame_of_the_world():
    environment = Robosuite("transport")
    observation, _ = environment.reset(seed=0)
    assert environment.action_space.shape == (14,)
    state = environment.sim_state()
    still = absolute_actions(environment, state[None], np.zeros((1, 14)))[0].reshape(2, 7)
    for arm in range(2):
        np.testing.assert_allclose(still[arm, :3], observation[f"robot{arm}_eef_pos"], atol=1e-6)
    environment.close()


def test_the_environment_of_a_file_is_rebuilt():
    """The metadata describes the environment: made from it, it is the same; its actions can be switched."""
    env_args = default_env_args(find_task("lift"), "1.5.1")
    env_args["env_kwargs"]["control_freq"] = 10
    env_args["env_kwargs"]["controller_configs"]["body_parts"]["right"]["kp"] = 50
    rebuilt = Robosuite(env_args=env_args, actions="absolute")
    assert rebuilt.actions == "absolute"
    assert rebuilt.robosuite.control_freq == 10
    controller = rebuilt.robosuite.robots[0].part_controllers["right"]
    assert (controller.input_type, controller.input_ref_frame, controller.kp[0]) == ("absolute", "world", 50)
    again = Robosuite(env_args=rebuilt.env_args)
    assert again.env_args == rebuilt.env_args
    assert again.actions == "absolute"
    rebuilt.close()
    again.close()


def test_cameras_see_the_scene_upright():
    environment = Robosuite("lift", cameras=["agentview"], image_size=48, render_mode="rgb_array", render_size=64)
    observation, _ = environment.reset(seed=0)
    frame = observation["agentview_image"]
    assert environment.observation_space.contains(observation)
    assert frame.shape == (48, 48, 3)
    red = (frame[..., 0].astype(int) - frame[..., 1:].max(-1)) > 60
    rows = np.flatnonzero(red.any(1))
    assert 24 < rows.mean() < 44, "the cube lies on the table, in the lower half of the picture"
    environment.reset(seed=1)
    picture = environment.render()
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 10
    environment.close()


def test_rendering_needs_no_observed_camera():
    environment = Robosuite("can", render_mode="rgb_array", render_camera="birdview", render_size=32)
    environment.reset(seed=0)
    first = environment.render()
    environment.reset(seed=1)
    assert first.shape == (32, 32, 3)
    assert not np.array_equal(first, environment.render())
    environment.close()


def test_no_opengl_is_one_sentence_that_names_the_packages():
    """A graphics device that does not exist, as on a machine without any."""
    program = (
        "from policy_accel.envs.robosuite_env import Robosuite\n"
        "from policy_accel.errors import UserError\n"
        "for options in ({'cameras': ['agentview']}, {'render_mode': 'rgb_array'}):\n"
        "    try:\n"
        "        environment = Robosuite('lift', **options)\n"
        "        environment.reset(seed=0)\n"
        "        environment.render()\n"
        "    except UserError as error:\n"
        "        print(error)\n"
    )
    variables = {**os.environ, "MUJOCO_GL": "egl", "MUJOCO_EGL_DEVICE_ID": "99"}
    variables.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=variables, timeout=120)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    for line in lines:
        assert line.startswith("robosuite's camera agentview cannot be drawn with MUJOCO_GL=egl ("), line
        assert "apt-get install libegl1" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "lfit"}, "robosuite task 'lfit' is unknown; did you mean 'lift'"),
        ({"actions": "delta"}, "actions 'delta' is unknown"),
        ({"cameras": ["agentveiw"]}, "Lift has no camera 'agentveiw'; cameras are: .*agentview"),
        ({"render_mode": "rgb_array", "render_camera": "top"}, "no camera 'top'; cameras are: .*birdview"),
    ],
)
def test_mistakes_are_one_sentence(options, words):
    with pytest.raises(UserError, match=words):
        Robosuite(**options)


def test_states_models_and_actions_of_another_kind_are_refused(lift):
    lift.reset(seed=0)
    with pytest.raises(UserError, match="7 finite numbers"):
        lift.step(np.zeros(10))
    with pytest.raises(UserError, match=r"32 finite numbers .* got shape \(5,\)"):
        lift.reset(seed=0, options={"state": np.zeros(5)})
    with pytest.raises(UserError, match="is not a model of robosuite's Lift"):
        lift.reset(seed=0, options={"model": "<mujoco><broken"})
    assert lift.reset(seed=0)[0]["object"].shape == (10,)
