"""Frames that are left out, and frames of several environments in one process, against robosuite alone."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
from support.memory import release_memory

from policy_accel.envs.robosuite_env import Robosuite
from policy_accel.envs.robosuite_make import import_robosuite
from policy_accel.envs.robosuite_tasks import default_env_args, find_task

SIZE = 16
STILL, PUSH = np.zeros(7), np.full(7, 0.9)


def make(task: str = "lift", **options) -> Robosuite:
    return Robosuite(task, cameras=["agentview"], image_size=SIZE, **options)


def frame(observation) -> np.ndarray:
    return observation["agentview_image"].copy()


def test_a_frequency_whose_frames_are_not_of_their_own_step_is_always_drawn():
    """At 30 Hz robosuite samples a camera now and then in the step before."""
    env_args = default_env_args(find_task("lift"), "1.5.1")
    env_args["env_kwargs"]["control_freq"] = 30
    environment = make(env_args=env_args)
    options = deepcopy(environment.env_args["env_kwargs"])
    found = {0: frame(environment.reset(seed=2)[0])}
    actions = np.random.default_rng(3).uniform(-1, 1, (26, 7))
    for step, action in enumerate(actions, start=1):
        environment.frames_wanted = step in (13, 26)
        observation = environment.step(action)[0]
        if environment.frames_wanted:
            found[step] = frame(observation)
    environment.close()
    release_memory()
    plain = import_robosuite().make("Lift", **options)
    np.random.seed(2)  # noqa: NPY002
    frames = [plain.reset()["agentview_image"][::-1]]
    frames += [plain.step(action)[0]["agentview_image"][::-1] for action in actions]
    plain.close()
    np.testing.assert_array_equal(frames[26], frames[25])  # both sampled in step 25
    assert not np.array_equal(frames[25], frames[24])
    for step in (0, 13, 26):
        np.testing.assert_array_equal(found[step], frames[step])


def test_resets_draw_whatever_is_wanted():
    """Also from a recorded model, where robosuite makes its cameras' sensors again; a step that wants none does not."""
    lift = make()
    lift.reset(seed=8)
    recorded = {"state": lift.sim_state(), "model": lift.model_xml()}
    first = frame(lift.reset(seed=8)[0])
    for options in (None, recorded, None):
        lift.reset(seed=1)
        lift.frames_wanted = False
        observation, _ = lift.reset(seed=8, options=options)
        np.testing.assert_array_equal(frame(observation), first)
        later = lift.step(PUSH)[0]
        np.testing.assert_array_equal(frame(later), first)
        assert not np.array_equal(later["robot0_eef_pos"], observation["robot0_eef_pos"])
        lift.frames_wanted = True
        assert not np.array_equal(frame(lift.step(PUSH)[0]), first)
    lift.close()


def test_environments_of_one_process_do_not_disturb_each_other():
    """Neither by drawing, nor by a model that is built again, nor by an end: each has an OpenGL context of its own."""

    def episode(environment, between=lambda: None):
        frames = [frame(environment.reset(seed=4)[0])]
        between()
        return [*frames, frame(environment.step(STILL)[0])]

    can, lift = make("can"), make(render_mode="rgb_array", render_size=2 * SIZE)
    expected, expected_can = episode(lift), episode(can)
    assert expected[0].std() > 10
    picture = lift.render()

    def build_again():
        can.robosuite.hard_reset = True
        can.robosuite.reset()

    np.testing.assert_array_equal(episode(lift, lambda: episode(can)), expected)
    np.testing.assert_array_equal(episode(can, lambda: episode(lift)), expected_can)
    np.testing.assert_array_equal(episode(lift, build_again), expected)
    np.testing.assert_array_equal(lift.render(), picture)
    np.testing.assert_array_equal(episode(lift, can.close), expected)
    np.testing.assert_array_equal(lift.render(), picture)
    lift.close()
