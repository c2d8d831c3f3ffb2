"""A file in robomimic's layout, written by h5py alone, and ways to change it."""

import json

import h5py
import numpy as np
import pytest

ENV_ARGS = {"env_name": "Lift", "type": 1, "env_kwargs": {"robots": ["Panda"], "control_freq": 20}}
LENGTHS = {"demo_0": 4, "demo_10": 6, "demo_2": 5}  # in the order of text
BY_NUMBER = ["demo_0", "demo_2", "demo_10"]


def arrays_of(demo):
    number, steps = int(demo[5:]), LENGTHS[demo]
    rng = np.random.default_rng(number)
    return {
        "actions": rng.uniform(-1, 1, size=(steps, 7)),
        "actions_abs": rng.uniform(-1, 1, size=(steps, 7)),
        "states": rng.normal(size=(steps, 32)),
        "rewards": np.eye(steps)[-1],
        "dones": np.eye(steps)[-1].astype(np.int64),
        "obs/object": rng.normal(size=(steps, 10)),
        "obs/robot0_eef_pos": rng.normal(size=(steps, 3)).astype(np.float32),
        "obs/agentview_image": rng.integers(0, 256, size=(steps, 8, 8, 3), dtype=np.uint8),
        "next_obs/object": rng.normal(size=(steps, 10)),
        "action_dict/abs_pos": rng.normal(size=(steps, 3)),
        "datagen_info/eef_pose": rng.normal(size=(steps, 4, 4)),
    }


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "low_dim.hdf5"
    with h5py.File(path, "w") as handle:
        data = handle.create_group("data")
        data.attrs["total"] = sum(LENGTHS.values())
        data.attrs["env_args"] = json.dumps(ENV_ARGS)
        for demo, steps in LENGTHS.items():
            group = data.create_group(demo)
            group.attrs["num_samples"] = steps
            group.attrs["model_file"] = f"<mujoco {demo}/>"
            for name, values in arrays_of(demo).items():
                group[name] = values
        handle["mask/train"] = np.array([b"demo_10", b"demo_0"])
        handle["mask/valid"] = np.array([b"demo_2"])
    return path


def change(path):
    return h5py.File(path, "r+")


def delete(name):
    def damage(handle):
        del handle[name]

    return damage


def put(name, values):
    def damage(handle):
        if name in handle:
            del handle[name]
        handle[name] = values

    return damage


def set_attribute(place, name, value):
    def damage(handle):
        handle[place].attrs[name] = value

    return damage
