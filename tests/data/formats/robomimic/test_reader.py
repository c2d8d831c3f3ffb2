"""Files in robomimic's layout written by h5py alone, and real recordings."""

import json

import h5py
import numpy as np
import pytest

from policy_accel.data import inspect, read_episodes
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.readers import open_episodes, write_episodes
from policy_accel.errors import UserError

from .conftest import BY_NUMBER, ENV_ARGS, LENGTHS, arrays_of, change, put

IN_MEMORY = {
    "actions": "action",
    "actions_abs": "action_abs",
    "states": "sim_state",
    "rewards": "reward",
    "dones": "done",
    "obs/object": "object",
    "obs/robot0_eef_pos": "robot0_eef_pos",
    "obs/agentview_image": "agentview_image",
    "next_obs/object": "next_obs.object",
    "action_dict/abs_pos": "action_dict.abs_pos",
    "datagen_info/eef_pose": "extra.datagen_info/eef_pose",
}


def test_layout_of_robomimic(file):
    read = read_episodes(file)
    assert read.lengths.tolist() == [LENGTHS[demo] for demo in BY_NUMBER]
    assert set(read.arrays) == set(IN_MEMORY.values())
    for stored, key in IN_MEMORY.items():
        expected = np.concatenate([arrays_of(demo)[stored] for demo in BY_NUMBER])
        assert read.arrays[key].dtype == expected.dtype
        np.testing.assert_array_equal(read.arrays[key], expected)
    assert read.metadata == {"env_args": ENV_ARGS}
    assert [facts["name"] for facts in read.episode_metadata] == BY_NUMBER
    assert [facts["filters"] for facts in read.episode_metadata] == [["train"], ["valid"], ["train"]]
    assert read.episode_metadata[1] == {
        "name": "demo_2",
        "num_samples": 5,
        "filters": ["valid"],
        "model_file": "<mujoco demo_2/>",
    }


def test_pieces_of_an_episode(file):
    with open_episodes(file) as reader:
        assert (reader.format, reader.layout) == ("robomimic", "robomimic HDF5, Lift, env_version not given")
        read = reader.read(2, ["object", "done"], 1, 3)
        assert list(read) == ["object", "done"]
        np.testing.assert_array_equal(read["object"], arrays_of("demo_10")["obs/object"][1:3])
        np.testing.assert_array_equal(reader.read(1, ["done"])["done"], arrays_of("demo_2")["dones"])


def test_filter(file):
    read = read_episodes(file, ["object"], filter_key="train")
    assert read.lengths.tolist() == [4, 6]
    np.testing.assert_array_equal(read.arrays["object"][4:], arrays_of("demo_10")["obs/object"])
    assert [facts["name"] for facts in read.episode_metadata] == ["demo_0", "demo_10"]
    with pytest.raises(UserError, match=r"low_dim\.hdf5: has no filter 'trian'; did you mean 'train'"):
        open_episodes(file, filter_key="trian")


def test_filter_of_a_file_without(file):
    with change(file) as handle:
        del handle["mask"]
    with pytest.raises(UserError, match=r"has no filter 'train'; it has no filters at all"):
        open_episodes(file, filter_key="train")


def test_names_of_observations_that_are_taken(file, tmp_path):
    with change(file) as handle:
        for demo, steps in LENGTHS.items():
            handle[f"data/{demo}/obs/action"] = np.full((steps, 2), 5.0)
    read = read_episodes(file)
    assert read.arrays["obs.action"].shape == (15, 2)
    assert read.arrays["action"].shape == (15, 7)
    write_episodes(tmp_path / "again.hdf5", MemoryReader(read), "robomimic")
    with h5py.File(tmp_path / "again.hdf5") as handle:
        assert handle["data/demo_0/obs/action"].shape == (4, 2)


@pytest.mark.parametrize(
    ("arrays", "keys"),
    [
        (
            {"observations/qpos": 3, "observations/images/cam0": 4, "actions": 2},
            {"observations/qpos": "qpos", "observations/images/cam0": "images/cam0", "actions": "action"},
        ),
        ({"observation/state": 3, "action": 2}, {"observation/state": "state", "action": "action"}),
        ({"observations": 3, "action": 2, "reward": 1}, {"observations": "observation", "reward": "reward"}),
        ({"qpos": 3, "cams/top": 4, "action": 2}, {"qpos": "qpos", "cams/top": "cams/top", "action": "action"}),
        (
            {"obs/qpos": 5, "observations/qpos": 3, "observations/qvel": 4, "actions": 2, "action": 1, "torque": 6},
            {
                **{"obs/qpos": "qpos", "observations/qpos": "extra.observations/qpos", "observations/qvel": "qvel"},
                **{"actions": "action", "action": "extra.action", "torque": "extra.torque"},
            },
        ),
        ({"states": 9, "actions": 2, "torque": 6}, {"states": "sim_state", "torque": "extra.torque"}),
    ],
)
def test_observations_that_lie_elsewhere(tmp_path, arrays, keys):
    """Their widths say which array became which key; a file of what was read gives the same."""
    with h5py.File(tmp_path / "x.hdf5", "w") as handle:
        for path, width in arrays.items():
            handle[f"data/demo_0/{path}"] = np.full((5, width), width, np.float32)
    read = read_episodes(tmp_path / "x.hdf5")
    assert {key: read.arrays[key].shape[1] for key in keys.values()} == {keys[path]: arrays[path] for path in keys}
    assert len(read.arrays) == len(arrays)
    write_episodes(tmp_path / "again.hdf5", MemoryReader(read), "robomimic")
    again = read_episodes(tmp_path / "again.hdf5", list(read.arrays)).arrays
    assert all((again[key] == read.arrays[key]).all() for key in read.arrays)


def test_a_run_of_before_finds_its_keys(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as handle:
        for path in ("observations/qpos", "torque", "actions"):
            handle[f"data/demo_0/{path}"] = np.full((5, 2), len(path), np.float32)
    keys = ["extra.observations/qpos", "extra.torque", "action"]
    read = read_episodes(tmp_path / "x.hdf5", keys)
    assert {key: array[0, 0] for key, array in read.arrays.items()} == {keys[0]: 17, keys[1]: 6, keys[2]: 7}
    with pytest.raises(UserError, match=r"has no key 'extra\.force'"):
        read_episodes(tmp_path / "x.hdf5", ["extra.force"])


def test_mask_with_a_name_that_is_not_there(file):
    with change(file) as handle:
        handle["mask/more"] = np.array([b"demo_2", b"demo_77"])
    with pytest.warns(UserWarning, match=r"mask/more names 1 demonstrations that are not there, as demo_77"):
        assert len(read_episodes(file, filter_key="more")) == 1


@pytest.mark.parametrize("members", [np.array([True, False]), np.array([[3]]), np.float32(1)])
def test_mask_of_another_kind(file, members):
    with change(file) as handle:
        handle["mask/more"] = members
    with pytest.warns(UserWarning, match=r"mask/more is left out: it is no list of names"):
        assert len(read_episodes(file, filter_key="train")) == 2


def test_attributes_of_another_kind(file):
    with change(file) as handle:
        handle["data"].attrs["env_args"] = "{Lift"
        handle["data"].attrs["where"] = handle["data/demo_0"].ref
        handle["data/demo_0"].attrs["pair"] = np.array((1, 2.5), dtype="i4,f8")
        handle["data/demo_0"].attrs["nothing"] = h5py.Empty("f4")
    with pytest.warns(UserWarning, match=r"env_args is left out: it is no JSON object but '{Lift'"):
        read = read_episodes(file)
    assert "env_args" not in read.metadata
    assert read.episode_metadata[0]["pair"] == [1, 2.5]
    json.dumps([read.metadata, read.episode_metadata])


def test_demonstrations_at_the_root(file):
    """And named otherwise; their observations go on after the last action."""
    with change(file) as handle:
        for demo, steps in LENGTHS.items():
            handle.move(f"data/{demo}", demo.replace("demo", "traj"))
            put(f"{demo.replace('demo', 'traj')}/obs/object", np.zeros((steps + 1, 10)))(handle)
        del handle["data"]
    read = read_episodes(file)
    assert read.lengths.tolist() == [4, 5, 6]
    assert read.arrays["object"].shape == (15, 10)
    with open_episodes(file) as reader:
        assert "the observation after the last step left out" in reader.layout


def test_one_demonstration(file):
    with change(file) as handle:
        del handle["data/demo_2"], handle["data/demo_10"]
        handle["data/demo_0/obs/camera/left/rgb"] = np.zeros((4, 2, 2, 3), np.uint8)
    with pytest.warns(UserWarning, match="mask/"):
        assert read_episodes(file).arrays["camera/left/rgb"].shape == (4, 2, 2, 3)


class TestRawRecordings:
    """robosuite's teleoperation recordings: a group of demonstrations for each task, none called data."""

    def test_groups_are_named(self, shared_data):
        with pytest.raises(UserError, match=r"no group data/ .* found them in door, lift, .* as .*\.hdf5::door"):
            read_episodes(shared_data / "robosuite_panda_demos.hdf5")

    def test_one_group(self, shared_data):
        path = shared_data / "robosuite_panda_demos.hdf5"
        read = read_episodes(f"{path}::lift")
        assert {key: values.shape for key, values in read.arrays.items()} == {
            "action": (412, 7),
            "sim_state": (412, 32),
            "extra.joint_torques": (412, 7),
        }
        with h5py.File(path) as handle:
            np.testing.assert_array_equal(read.arrays["action"], handle["lift/demo_1/actions"][:])
        assert read.metadata["env_info"]["env_name"] == "Lift"
        assert read.episode_metadata == ({"name": "demo_1", "num_samples": 412, "model_file": "model_1.xml"},)

    def test_unknown_group(self, shared_data):
        with pytest.raises(UserError, match=r"has no group lifts/ of demonstrations, .* found them in door, lift,"):
            read_episodes(f"{shared_data / 'robosuite_panda_demos.hdf5'}::lifts")


def test_report(file):
    found = inspect(file)
    assert found.problems == ()
    assert "robomimic HDF5, Lift, env_version not given" in found.text
    assert "episodes: 3, steps: 15, steps per episode: 4 min, 5 median, 6 max" in found.text
    assert "  agentview_image: [15, 8, 8, 3] uint8" in found.text
    assert '  env_args: {"env_name": "Lift"' in found.text
    assert "  filters: train (2), valid (1) episodes" in found.text


def test_report_lists_every_value_that_is_not_finite(file):
    with change(file) as handle:
        handle["data/demo_2/obs/object"][3, 1] = np.inf
        handle["data/demo_10/actions"][0, 0] = np.nan
    found = inspect(file)
    assert [problem.split(";")[0] for problem in found.problems] == [
        "data/action holds NaN at step 9 (episode 2, its step 0)",
        "data/object holds Inf at step 7 (episode 1, its step 3)",
    ]
