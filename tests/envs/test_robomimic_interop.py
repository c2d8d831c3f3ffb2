"""What robomimic's own tools make of the files that we write."""

from __future__ import annotations

import os

os.environ.setdefault("MUJOCO_GL", "egl")

import runpy
import sys
import types
from argparse import Namespace

import av
import h5py
import numpy as np
import pytest
from support.memory import release_memory

from policy_accel.data import Episodes, read_episodes
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.readers import write_episodes

OBSERVATIONS = ["object", "robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"]


@pytest.fixture(scope="module")
def path(recorded, tmp_path_factory):
    written = tmp_path_factory.mktemp("robomimic") / "lift.hdf5"
    write_episodes(written, MemoryReader(recorded), "robomimic")
    return written


@pytest.fixture(scope="module", autouse=True)
def robomimic():
    """Make robomimic 0.3.0 run without two packages of its time.

    It takes the name of an exception from mujoco_py, which is no more, and the number of a GPU to draw on from
    egl_probe, which has to be compiled; where that finds none it draws with what MUJOCO_GL names.
    """
    stubs = {name: types.ModuleType(name) for name in ("mujoco_py", "egl_probe")}
    stubs["mujoco_py"].builder = types.SimpleNamespace(MujocoException=RuntimeError)
    stubs["egl_probe"].get_available_devices = list
    with pytest.MonkeyPatch.context() as patch:
        for name, stub in stubs.items():
            patch.setitem(sys.modules, name, stub)
        import robomimic.utils.obs_utils as observations
        from robomimic.envs.env_robosuite import EnvRobosuite

        for name in ("reset", "reset_to"):
            patch.setattr(EnvRobosuite, name, _releasing(getattr(EnvRobosuite, name)))

        observations.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": OBSERVATIONS, "rgb": []}})
        yield


def _releasing(reset):
    """A reset that frees what the one before left: each builds the whole scene again."""

    def released(*arguments):
        release_memory()
        return reset(*arguments)

    return released


def test_metadata_and_shapes(path, recorded):
    from robomimic.utils import env_utils, file_utils

    environment = file_utils.get_env_metadata_from_dataset(str(path))
    assert environment == recorded.metadata["env_args"]
    assert env_utils.is_robosuite_env(environment)
    shapes = file_utils.get_shape_metadata_from_dataset(str(path), all_obs_keys=OBSERVATIONS)
    assert shapes["ac_dim"] == 7
    assert {key: list(shape) for key, shape in shapes["all_shapes"].items()} == {
        "object": [10],
        "robot0_eef_pos": [3],
        "robot0_eef_quat": [4],
        "robot0_gripper_qpos": [2],
    }
    train = file_utils.get_demos_for_filter_key(str(path), "train")
    valid = file_utils.get_demos_for_filter_key(str(path), "valid")
    assert (sorted(train), valid) == (["demo_0", "demo_2"], ["demo_1"])


@pytest.mark.parametrize("filter_key", [None, "valid"])
def test_sequence_dataset(path, recorded, filter_key):
    from robomimic.utils.dataset import SequenceDataset

    dataset = SequenceDataset(
        hdf5_path=str(path),
        obs_keys=OBSERVATIONS,
        dataset_keys=["actions", "rewards", "dones"],
        frame_stack=2,
        seq_length=8,
        pad_frame_stack=True,
        pad_seq_length=True,
        hdf5_cache_mode="all",
        hdf5_use_swmr=False,
        filter_by_attribute=filter_key,
    )
    first = int(recorded.starts[1]) if filter_key else 0
    assert len(dataset) == (recorded.lengths[1] if filter_key else recorded.steps)
    item = dataset[5]
    # The item starts one frame before its step, and goes on for eight.
    rows = slice(first + 4, first + 13)
    np.testing.assert_allclose(item["actions"], recorded.arrays["action"][rows])
    for key in OBSERVATIONS:
        np.testing.assert_allclose(item["obs"][key], recorded.arrays[key][rows])
    last = dataset[len(dataset) - 1] if filter_key else dataset[int(recorded.lengths[0]) - 1]
    assert np.all(last["dones"][1:])
    assert np.all(last["rewards"][1:] == 1)
    assert not np.any(item["dones"])


def test_its_environment_resets_and_replays_to_success(path):
    from robomimic.utils import env_utils, file_utils

    environment = env_utils.create_env_from_metadata(
        file_utils.get_env_metadata_from_dataset(str(path)), render=False, render_offscreen=False
    )
    with h5py.File(path) as file:
        for name in ("demo_0", "demo_1"):
            demo = file["data"][name]
            environment.reset()
            observation = environment.reset_to({"states": demo["states"][0], "model": demo.attrs["model_file"]})
            for key in OBSERVATIONS:
                np.testing.assert_allclose(observation[key], demo["obs"][key][0], atol=2e-6, err_msg=key)
            for action in demo["actions"][:]:
                environment.step(action)
            assert environment.is_success()["task"]


def test_playback_writes_a_video(path, tmp_path):
    from robomimic.scripts.playback_dataset import playback_dataset

    video = tmp_path / "playback.mp4"
    playback_dataset(
        Namespace(
            dataset=str(path),
            filter_key="valid",
            n=1,
            use_obs=False,
            use_actions=False,
            render=False,
            video_path=str(video),
            video_skip=10,
            render_image_names=None,
            first=False,
        )
    )
    with h5py.File(path) as file:
        steps = len(file["data/demo_1/actions"])
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == -(-steps // 10)
    assert frames[0].shape == (512, 512, 3)
    assert frames[0].std() > 20  # a scene, not a plain colour
    assert np.abs(frames[0].astype(float) - frames[-1]).mean() > 1


def test_our_own_reader_gives_everything_back(path, recorded):
    read = read_episodes(path)
    assert set(read.arrays) == set(recorded.arrays)
    for key, values in recorded.arrays.items():
        assert read.arrays[key].dtype == values.dtype
        np.testing.assert_array_equal(read.arrays[key], values)
    assert read.metadata == recorded.metadata
    for ours, theirs in zip(recorded.episode_metadata, read.episode_metadata, strict=True):
        assert ours.items() <= theirs.items()


def test_files_that_its_own_scripts_make_are_read(path, recorded, tmp_path):
    """dataset_states_to_obs renders a set anew from the recorded states, split_train_val puts filters into it."""
    from robomimic.scripts.dataset_states_to_obs import dataset_states_to_obs
    from robomimic.scripts.split_train_val import split_train_val_from_hdf5

    raw, steps = tmp_path / "demo.hdf5", 12
    raw.write_bytes(path.read_bytes())
    with h5py.File(raw, "a") as file:  # as collected: states and actions, nothing observed
        for demo in file["data"].values():
            kept = {name: demo[name][:steps] for name in ("states", "actions", "rewards", "dones")}
            demo.clear()
            demo.update(kept)
            demo.attrs["num_samples"] = steps
        del file["mask"]
    dataset_states_to_obs(
        Namespace(
            dataset=str(raw),
            output_name="image.hdf5",
            n=2,
            shaped=False,
            camera_names=["agentview"],
            camera_height=32,
            camera_width=32,
            done_mode=2,
            copy_rewards=False,
            copy_dones=False,
            exclude_next_obs=False,
            compress=True,
        )
    )
    made = tmp_path / "image.hdf5"
    split_train_val_from_hdf5(hdf5_path=str(made), val_ratio=0.5)
    read = read_episodes(made)
    rows = np.concatenate([np.arange(steps), recorded.starts[1] + np.arange(steps)])
    np.testing.assert_array_equal(read.episode_ends, [steps, 2 * steps])
    for key in ("action", "sim_state"):
        np.testing.assert_array_equal(read.arrays[key], recorded.arrays[key][rows])
    # Observed anew from states: robosuite observes bodies 2 ms late while it runs.
    recorded = recorded.arrays["robot0_eef_pos"][rows]
    np.testing.assert_allclose(read.arrays["robot0_eef_pos"], recorded, atol=2e-3)
    assert read.arrays["agentview_image"].shape == (2 * steps, 32, 32, 3)
    assert read.arrays["agentview_image"].dtype == np.uint8
    assert read.arrays["agentview_image"].std() > 10
    assert {"next_obs.object", "reward", "done"} <= set(read.arrays)
    assert read.metadata["env_args"]["env_kwargs"]["camera_heights"] == 32
    assert sorted(facts["filters"] for facts in read.episode_metadata) == [["train"], ["valid"]]
    assert len(read_episodes(made, filter_key="valid")) == 1


@pytest.mark.parametrize("cache", [None, "low_dim", "all"])
def test_a_set_of_no_environment(tmp_path, capsys, monkeypatch, cache):
    """Its tools read what nobody recorded: env_args, next_obs, rewards, dones; our reader does not."""
    from robomimic.utils import file_utils, obs_utils
    from robomimic.utils.dataset import SequenceDataset

    rng = np.random.default_rng(0)
    arrays = {
        "action": rng.uniform(-1, 1, (9, 2)),
        "state": rng.normal(size=(9, 3)),
        "camera": rng.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8),
    }
    path = tmp_path / "plain.hdf5"
    write_episodes(path, MemoryReader(Episodes(arrays, [1, 4, 9], "made", {"fps": 10})), "robomimic")

    monkeypatch.setattr(sys, "argv", ["get_dataset_info", "--dataset", str(path)])
    runpy.run_module("robomimic.scripts.get_dataset_info", run_name="__main__")
    assert '"env_name": "none"' in capsys.readouterr().out
    assert file_utils.get_env_metadata_from_dataset(str(path))["env_kwargs"] == {}

    monkeypatch.setattr(obs_utils, "OBS_KEYS_TO_MODALITIES", {"state": "low_dim", "camera": "rgb"})
    windows = SequenceDataset(
        str(path), ["state", "camera"], ["actions", "rewards", "dones"], seq_length=2, hdf5_cache_mode=cache
    )
    for row, following in ((0, [0, 0]), (1, [2, 3]), (7, [8, 8]), (8, [8, 8])):
        for key in ("state", "camera"):
            np.testing.assert_array_equal(windows[row]["next_obs"][key], arrays[key][following])
    assert windows[7]["dones"].ravel().tolist() == [0, 1]

    read = read_episodes(path)
    assert read.metadata == {"fps": 10}
    assert read.arrays.keys() == arrays.keys()
