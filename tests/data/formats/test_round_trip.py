"""Every format written and read back, through every other."""

import numpy as np
import pytest

from policy_accel.data import Episodes, read_episodes
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.readers import open_episodes, write_episodes

SUFFIXES = {"zarr": ".zarr.zip", "robomimic": ".hdf5", "npz": ".npz", "lerobot": ""}
STEPS = 37
MODEL = "<mujoco>" + "é" * 70_000 + "</mujoco>"  # longer than an HDF5 attribute may be in place


def made():
    rng = np.random.default_rng(0)
    arrays = {
        "action": rng.normal(size=(STEPS, 7)),
        "action_abs": rng.normal(size=(STEPS, 7)).astype(np.float32),
        "reward": rng.random(STEPS).astype(np.float32),
        "done": rng.random(STEPS) < 0.1,
        "sim_state": rng.normal(size=(STEPS, 32)),
        "object": rng.normal(size=(STEPS, 10)).astype(np.float32),
        "robot0_eef_pos": rng.normal(size=(STEPS, 3)),
        "keypoint": rng.normal(size=(STEPS, 9, 2)).astype(np.float32),
        "half": rng.normal(size=(STEPS, 2)).astype(np.float16),
        "touching": rng.random((STEPS, 2)) < 0.5,
        "n_contacts": rng.integers(0, 2**63 - 1, size=(STEPS, 1)),
        "small": rng.integers(0, 200, size=(STEPS, 3), dtype=np.uint8),
        "next_obs.object": rng.normal(size=(STEPS, 10)).astype(np.float32),
        "agentview_image": rng.integers(0, 256, size=(STEPS, 16, 24, 3), dtype=np.uint8),
        "robot0_eye_in_hand_image": rng.integers(0, 256, size=(STEPS, 16, 24, 3), dtype=np.uint8),
        "depth": rng.integers(0, 256, size=(STEPS, 8, 8, 1), dtype=np.uint8),
    }
    facts = (
        {"name": "demo_2", "filters": ["train"], "model_file": MODEL, "seed": 3},
        {"filters": ["20_percent", "train"], "ep": {"nested": [1, None, "x"]}, "score": 0.1},
        {"name": "other", "filters": [], "success": True},
    )
    metadata = {
        "env_args": {"env_name": "Lift", "type": 1, "env_version": "1.5.1", "env_kwargs": {"control_freq": 20}},
        "fps": 20,
        "tasks": ["lift the cube"],
        "nothing": None,
    }
    return Episodes(arrays, [12, 13, STEPS], "made", metadata, facts)


def assert_equal(first, second):
    assert first.arrays.keys() == second.arrays.keys()
    for key, values in first.arrays.items():
        assert second.arrays[key].dtype == values.dtype, key
        np.testing.assert_array_equal(second.arrays[key], values, err_msg=key)
    np.testing.assert_array_equal(first.episode_ends, second.episode_ends)
    assert first.metadata == second.metadata
    assert first.episode_metadata == second.episode_metadata


@pytest.mark.parametrize("first", SUFFIXES)
@pytest.mark.parametrize("second", SUFFIXES)
def test_there_and_back(tmp_path, first, second):
    episodes = made()
    a, b, c = tmp_path / f"a{SUFFIXES[first]}", tmp_path / f"b{SUFFIXES[second]}", tmp_path / f"c{SUFFIXES[first]}"
    write_episodes(a, MemoryReader(episodes), first)
    for source, target, name in ((a, b, second), (b, c, first)):
        with open_episodes(source) as reader:
            write_episodes(target, reader, name)
    for path, name in ((a, first), (b, second), (c, first)):
        with open_episodes(path) as reader:
            assert reader.format == name
        assert_equal(episodes, read_episodes(path))
