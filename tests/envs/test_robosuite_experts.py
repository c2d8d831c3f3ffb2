from __future__ import annotations

import os

os.environ.setdefault("MUJOCO_GL", "egl")

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from policy_accel.envs import attempts, robosuite_demonstrations
from policy_accel.envs.robosuite_demonstrations import generate, play
from policy_accel.envs.robosuite_env import Robosuite
from policy_accel.envs.robosuite_experts import DOWN, Expert, Scene, hand_rotation, hand_yaw, read_scene
from policy_accel.errors import UserError

EPISODES = 3


@pytest.fixture(scope="module")
def environment():
    made = Robosuite("lift", render_mode="rgb_array", render_size=32)
    yield made
    made.close()


def episode(episodes, index):
    rows = slice(episodes.starts[index], episodes.episode_ends[index])
    return {key: values[rows] for key, values in episodes.arrays.items()}


def test_every_start_of_lift_is_solved_quickly(recorded, environment):
    assert len(recorded) == EPISODES
    seeds = [facts["seed"] for facts in recorded.episode_metadata]
    # No attempt was left out: the seeds are those of the first attempts.
    assert seeds == [robosuite_demonstrations.start_seed(5, index) for index in range(EPISODES)]
    assert min(seeds) >= 2**31
    assert recorded.lengths.max() < 80
    np.testing.assert_array_equal(np.flatnonzero(recorded.arrays["done"]), recorded.episode_ends - 1)
    np.testing.assert_array_equal(np.flatnonzero(recorded.arrays["reward"] == 1), recorded.episode_ends - 1)


@pytest.mark.parametrize(("task", "index"), [("can", 0), ("square", 1)])
def test_can_and_square_are_solved(task, index):
    environment = Robosuite(task)
    played = play(environment, task, robosuite_demonstrations.start_seed(0, index))
    assert played.success
    assert environment.robosuite._check_success()
    assert np.abs(played.arrays["action"]).max() <= 1
    environment.close()


def test_observations_are_those_before_the_action(recorded):
    for index in range(EPISODES):
        arrays = episode(recorded, index)
        for key in [key for key in arrays if key.startswith("next_obs.")]:
            np.testing.assert_array_equal(arrays[key][:-1], arrays[key.removeprefix("next_obs.")][1:], err_msg=key)
    assert recorded.arrays["object"].shape == (recorded.steps, 10)
    assert {key for key in recorded.arrays if not key.startswith("next_obs.")} >= {
        *("action", "action_abs", "reward", "done", "sim_state", "object"),
        *("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "robot0_joint_pos", "robot0_joint_vel"),
    }
    assert recorded.arrays["action"].dtype == recorded.arrays["action_abs"].dtype == np.float32
    assert recorded.arrays["sim_state"].dtype == np.float64


def test_recorded_states_hold_what_was_observed(recorded, environment):
    arrays, facts = episode(recorded, 1), recorded.episode_metadata[1]
    for step in (0, 7, len(arrays["action"]) - 1):
        options = {"state": arrays["sim_state"][step], "model": facts["model_file"]}
        observation, _ = environment.reset(seed=0, options=options)
        for key in ("robot0_joint_pos", "robot0_gripper_qpos"):
            np.testing.assert_allclose(observation[key], arrays[key][step], atol=2e-6, err_msg=key)
        # While it runs, robosuite observes the bodies one step of physics (2 ms) late.
        late = 2e-6 if step == 0 else 2e-3
        np.testing.assert_allclose(observation["robot0_eef_pos"], arrays["robot0_eef_pos"][step], atol=late)
        np.testing.assert_allclose(observation["object"][:7], arrays["object"][step][:7], atol=late)


@pytest.mark.parametrize(("key", "actions"), [("action", "relative"), ("action_abs", "absolute")])
def test_recorded_actions_solve_the_task_again(recorded, key, actions):
    replay = Robosuite(actions=actions, env_args=recorded.metadata["env_args"])
    arrays, facts = episode(recorded, 1), recorded.episode_metadata[1]
    replay.reset(seed=0, options={"state": arrays["sim_state"][0], "model": facts["model_file"]})
    success, apart = False, 0.0
    for step, action in enumerate(arrays[key]):
        observation, _, success, _, _ = replay.step(action)
        apart = max(apart, np.abs(observation["robot0_eef_pos"] - arrays["next_obs.robot0_eef_pos"][step]).max())
    assert success
    assert apart < 0.015  # m; what robosuite's controller remembers of its reset is no part of the state
    replay.close()


def test_absolute_actions_are_the_pose_plus_the_relative_ones(recorded):
    arrays, first = recorded.arrays, recorded.starts
    position = arrays["robot0_eef_pos"] + 0.05 * arrays["action"][:, :3]
    apart = np.abs(arrays["action_abs"][:, :3] - position)
    before = Rotation.from_quat(arrays["robot0_eef_quat_site"])
    goal = Rotation.from_rotvec(0.5 * arrays["action"][:, 3:6]) * before
    turned = (goal * Rotation.from_rotvec(arrays["action_abs"][:, 3:6]).inv()).magnitude()
    assert apart[first].max() < 1e-6
    assert turned[first].max() < 1e-5
    # Later observations of the hand are one step of physics (2 ms) late.
    assert apart.max() < 2e-3
    assert turned.max() < 2e-2
    np.testing.assert_array_equal(arrays["action_abs"][:, 6], arrays["action"][:, 6])


def test_fewer_episodes_and_another_process_give_the_same(recorded, monkeypatch):
    """One process stands for both workers, each of which takes 700 MB; their order is test_attempts.py's."""
    monkeypatch.setattr(attempts, "ProcessPoolExecutor", lambda _, **options: ProcessPoolExecutor(1, **options))
    shared = generate(2, 5, workers=2)
    for key, values in shared.arrays.items():
        np.testing.assert_array_equal(values, recorded.arrays[key][: shared.steps], err_msg=key)
    assert shared.episode_metadata == recorded.episode_metadata[:2]
    assert shared.metadata == recorded.metadata


def test_episodes_differ_in_more_than_their_start(environment):
    first, second = (_actions(environment, seed) for seed in (1, 2))
    assert np.abs(first - second).max() > 0.1


def _actions(environment, seed):
    environment.reset(seed=9)
    expert = Expert("lift", np.random.default_rng(seed))
    actions = []
    for _ in range(10):
        actions.append(expert.act(read_scene(environment.robosuite, "lift")))
        environment.step(actions[-1])
    return np.array(actions)


def test_failures_are_left_out(monkeypatch, recorded):
    limit = int(recorded.lengths.min())
    monkeypatch.setitem(robosuite_demonstrations.MAX_STEPS, "lift", limit)
    best = int(np.argmin(recorded.lengths))
    made = generate(1, 5)
    assert made.episode_metadata[0]["seed"] == recorded.episode_metadata[best]["seed"]
    np.testing.assert_array_equal(made.arrays["action"], episode(recorded, best)["action"])


def test_a_cube_that_is_moved_away_is_grasped_again(environment):
    environment.reset(seed=3)
    expert = Expert("lift", np.random.default_rng(3))
    moved, success = False, False
    for _ in range(200):
        scene = read_scene(environment.robosuite, "lift")
        if scene.touched and not moved:
            simulator = environment.robosuite.sim
            joint = environment.robosuite.cube.joints[0]
            place = simulator.data.get_joint_qpos(joint).copy()
            place[:3] += (-0.08, 0.1, 0.01)
            simulator.data.set_joint_qpos(joint, place)
            simulator.forward()
            moved = True
            scene = read_scene(environment.robosuite, "lift")
        _, _, success, _, _ = environment.step(expert.act(scene))
        if success:
            break
    assert moved
    assert success


def test_metadata_is_robomimics(recorded):
    args = recorded.metadata["env_args"]
    assert (args["env_name"], args["type"], args["env_kwargs"]["robots"]) == ("Lift", 1, ["Panda"])
    assert args["env_version"].startswith("1.5")
    assert args["env_kwargs"]["control_freq"] == recorded.metadata["fps"] == 20
    assert [facts["name"] for facts in recorded.episode_metadata] == ["demo_0", "demo_1", "demo_2"]
    assert [facts["filters"] for facts in recorded.episode_metadata] == [["train"], ["valid"], ["train"]]
    assert all(facts["model_file"].startswith("<mujoco") for facts in recorded.episode_metadata)


def test_cameras_show_the_recorded_states(environment):
    made = generate(1, 5, cameras=["agentview"], image_size=32)
    frames = made.arrays["agentview_image"]
    assert frames.shape == (made.steps, 32, 32, 3)
    assert frames.dtype == np.uint8
    assert "next_obs.agentview_image" not in made.arrays
    for step in (0, made.steps - 1):
        options = {"state": made.arrays["sim_state"][step], "model": made.episode_metadata[0]["model_file"]}
        environment.reset(seed=0, options=options)
        assert np.abs(environment.render().astype(float) - frames[step]).mean() < 1
    assert np.abs(frames[0].astype(float) - frames[-1]).mean() > 3


def test_yaw_of_a_hand_that_points_down():
    np.testing.assert_allclose(hand_rotation(0.0), DOWN, atol=1e-12)
    for yaw in (-2.0, 0.3, 1.5):
        rotation = hand_rotation(yaw)
        np.testing.assert_allclose(rotation[:, 2], (0, 0, -1), atol=1e-12)
        scene = Scene(np.zeros(3), rotation, np.zeros(3), np.eye(3), touched=False)
        assert hand_yaw(scene) == pytest.approx(yaw)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "transport"}, "robosuite task with an expert 'transport' is unknown"),
        ({"episodes": 0}, "episodes is 0; give 1 or more"),
        ({"cameras": ["agent_view"]}, "no camera 'agent_view'.*agentview"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, message):
    with pytest.raises(UserError, match=message):
        generate(**({"episodes": 1, "seed": 0} | arguments))


GATHER = """
import pickle, re
import numpy as np
from policy_accel.envs import robosuite_demonstrations as module

def memory(name):
    return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read()).group(1)) / 1024

class Plain:
    env_args = {}

def recorded(index):
    arrays = {"action": np.ones((80, 7), np.float32), "agentview_image": np.full((80, 84, 84, 3), index, np.uint8)}
    # As it comes from a process that played it.
    return pickle.loads(pickle.dumps(module.Attempt(arrays, True, {"model_file": "<mujoco/>" * 10_000, "seed": index})))

def episodes(attempt, count, seed, **options):
    global before
    before = memory("VmRSS")
    return [recorded(index) for index in range(count)]

module.successful_episodes, module._environment = episodes, lambda *options: Plain()
made = module.generate(160, 0, task="lift", cameras=["agentview"])
assert (made.arrays["agentview_image"][:, 0, 0, 0] == np.repeat(np.arange(160), 80)).all()
print((memory("VmHWM") - before) / (made.arrays["agentview_image"].nbytes / 2**20))
"""


def test_frames_are_not_in_memory_twice():
    done = subprocess.run([sys.executable, "-c", GATHER], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 1.6
