from __future__ import annotations

import json
from copy import deepcopy

import h5py
import numpy as np
import pytest

from policy_accel.envs.robosuite_env import Robosuite
from policy_accel.envs.robosuite_make import complete_env_args
from policy_accel.envs.robosuite_tasks import default_env_args, find_task
from policy_accel.envs.robosuite_versions import check_generation, composite_controllers, generation
from policy_accel.errors import UserError


@pytest.fixture(scope="module")
def teleoperated(shared_data):
    """A real recording of Lift with robosuite 1.0: env_info, states and the version."""
    with h5py.File(shared_data / "robosuite_panda_demos.hdf5") as file:
        group = file["lift"]
        return json.loads(group.attrs["env_info"]), group["demo_1/states"][:], str(group.attrs["repository_version"])


@pytest.fixture
def env_args():
    return default_env_args(find_task("lift"), "1.5.1")


@pytest.mark.parametrize(
    ("version", "expected"),
    [("", "1.2"), ("1.0.0", "1.2"), ("1.2.1", "1.2"), ("1.4.1", "1.4"), ("1.5.1", "1.5"), ("1.10.0", "1.10")],
)
def test_generations(version, expected):
    assert generation(version) == expected


def test_data_of_this_generation_is_taken(env_args):
    check_generation(env_args, "demo.hdf5")
    check_generation({**env_args, "env_version": "1.5.0"}, "demo.hdf5")


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (None, r"recorded with robosuite 1\.2 \(env_args has no env_version\), and robosuite 1\.5\.1 .*low_dim_v15"),
        ("1.4.1", r"recorded with robosuite 1\.4\.1, and robosuite 1\.5\.1 .*low_dim_v15.*low_dim_v141"),
        ("1.6.0", r"recorded with robosuite 1\.6\.0, and robosuite 1\.5\.1 .*low_dim_v15.*environment to null"),
    ],
)
def test_data_of_another_generation_is_refused_with_both_versions_and_the_remedy(env_args, version, words):
    env_args["env_version"] = version
    with pytest.raises(UserError, match=words) as raised:
        Robosuite(env_args=env_args)
    assert "\n" not in str(raised.value)


def test_a_real_recording_is_refused_by_version_and_its_controller_is_understood(teleoperated):
    info, states, version = teleoperated
    described = {"env_name": info["env_name"], "env_version": version, "type": 1, "env_kwargs": info}
    with pytest.raises(UserError, match=r"lift\.hdf5: recorded with robosuite 1\.0\.0"):
        check_generation(described, "lift.hdf5")
    (controller,) = composite_controllers(info["controller_configs"], 1, "lift.hdf5")
    arm = controller["body_parts"]["right"]
    assert (arm["input_type"], arm["input_ref_frame"], arm["damping_ratio"]) == ("delta", "world", 1)
    environment = Robosuite("lift")
    outcomes = [environment.reset(seed=0, options={"state": state})[1]["is_success"] for state in states[[0, -1]]]
    environment.close()
    assert outcomes == [False, True], "the demonstration ends with the cube in the air"


def test_another_simulators_data_is_refused():
    with pytest.raises(UserError, match=r"a\.hdf5: env_args describes no robosuite environment \(type 2"):
        check_generation({"env_name": "Hopper-v2", "type": 2}, "a.hdf5")


OLD = {
    "type": "OSC_POSE",
    "input_max": 1,
    "input_min": -1,
    "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
    "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
    "kp": 150,
    "damping": 1,
    "impedance_mode": "fixed",
    "kp_limits": [0, 300],
    "damping_limits": [0, 10],
    "position_limits": None,
    "orientation_limits": None,
    "uncouple_pos_ori": True,
    "control_delta": True,
    "interpolation": None,
    "ramp_ratio": 0.2,
}


def test_an_old_controller_moves_the_arm_as_the_new_one(env_args):
    """The same rollout, bit for bit, from a configuration in the old form and from one in the new."""
    old = deepcopy(env_args)
    old["env_kwargs"]["controller_configs"] = OLD
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 7))
    states = []
    for args in (env_args, old):
        environment = Robosuite(env_args=args)
        environment.reset(seed=4)
        for action in actions:
            environment.step(action)
        states.append(environment.sim_state())
        environment.close()
    np.testing.assert_array_equal(*states)


def test_control_delta_false_means_absolute_actions():
    (controller,) = composite_controllers({**OLD, "control_delta": False}, 1, "a.hdf5")
    assert controller["body_parts"]["right"]["input_type"] == "absolute"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"type": "JOINT_POSITION"}, "type=JOINT_POSITION"),
        ({"impedance_mode": "variable"}, "impedance_mode=variable"),
        ({"interpolation": "linear"}, "interpolation=linear"),
        ({"position_limits": [[-1, -1, -1], [1, 1, 1]]}, "position_limits="),
        ({"eef_rot": 1}, "eef_rot"),
    ],
)
def test_old_controllers_that_mean_something_else_are_refused(change, named):
    with pytest.raises(UserError, match=f"a.hdf5: the controller of env_args .*{named}.* has no exact counterpart"):
        composite_controllers({**OLD, **change}, 1, "a.hdf5")


def test_a_new_controller_with_an_old_switch_is_ambiguous(env_args):
    arm = env_args["env_kwargs"]["controller_configs"]["body_parts"]["right"]
    del arm["input_type"]
    arm["control_delta"] = False
    with pytest.raises(UserError, match=r"control_delta to false, which robosuite 1\.5 does not read"):
        complete_env_args(env_args, source="a.hdf5")
    arm["control_delta"] = True
    arm["input_type"] = "delta"
    assert complete_env_args(env_args)["env_kwargs"]["controller_configs"]["body_parts"]["right"]["control_delta"]


@pytest.mark.parametrize("configs", [None, [{}], "OSC_POSE"])
def test_a_controller_for_each_robot(configs):
    with pytest.raises(UserError, match=r"a\.hdf5: env_args has no controller_configs for each of its 2 robots"):
        composite_controllers(configs, 2, "a.hdf5")


def test_unknown_environments_and_arguments_are_refused(env_args):
    with pytest.raises(UserError, match="has no environment 'Lfit'; did you mean 'Lift'"):
        Robosuite(env_args={**env_args, "env_name": "Lfit"})
    env_args["env_kwargs"]["colour"] = "red"
    with pytest.raises(UserError, match=r"Lift does not take these env_kwargs .*colour"):
        Robosuite(env_args=env_args)


def test_a_controller_that_lacks_settings_is_named() -> None:
    args = {"env_name": "Lift", "env_version": "1.5.1", "env_kwargs": {"controller_configs": {"type": "OSC_POSE"}}}
    with pytest.raises(UserError, match=r"x\.hdf5: the controller of env_args lacks damping_ratio, impedance_mode"):
        composite_controllers(args["env_kwargs"]["controller_configs"], 1, "x.hdf5")
