"""Our files in h5py's and robomimic's hands."""

import json

import h5py
import numpy as np
import pytest

from policy_accel.data import Episodes, read_episodes
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.readers import open_episodes, write_episodes
from policy_accel.errors import UserError

from .conftest import ENV_ARGS, arrays_of


def test_filtered_episodes_keep_their_names_on_the_way(file, tmp_path):
    with open_episodes(file, filter_key="train") as reader:
        write_episodes(tmp_path / "train.hdf5", reader, "robomimic")
    with h5py.File(tmp_path / "train.hdf5") as handle:
        assert sorted(handle["data"]) == ["demo_0", "demo_10"]
        assert handle["data"].attrs["total"] == 10
        assert handle["mask/train"][:].tolist() == [b"demo_0", b"demo_10"]


def test_layout(file, tmp_path):
    path = tmp_path / "again.hdf5"
    write_episodes(path, MemoryReader(read_episodes(file)), "robomimic")
    with h5py.File(path) as again, h5py.File(file) as first:
        names: list[str] = []
        first.visit(names.append)
        for name in names:
            if isinstance(first[name], h5py.Dataset) and not name.startswith("mask"):
                assert again[name].dtype == first[name].dtype
                np.testing.assert_array_equal(again[name][()], first[name][()])
            for key, value in first[name].attrs.items():
                if key != "env_args":
                    assert again[name].attrs[key] == value
        assert json.loads(again["data"].attrs["env_args"]) == ENV_ARGS
        assert again["mask/train"][:].tolist() == [b"demo_0", b"demo_10"]
        image = again["data/demo_0/obs/agentview_image"]
        assert (image.chunks, image.compression) == ((1, 8, 8, 3), "gzip")
        assert "policy_accel" not in again["data/demo_2"].attrs


def test_sequences_of_robomimic(file, tmp_path):
    """robomimic's own SequenceDataset gives the windows that its documentation promises."""
    from robomimic.utils import obs_utils
    from robomimic.utils.dataset import SequenceDataset

    path = tmp_path / "again.hdf5"
    write_episodes(path, MemoryReader(read_episodes(file)), "robomimic")
    keys = ["object", "robot0_eef_pos", "agentview_image"]
    obs_utils.initialize_obs_modality_mapping_from_dict({"low_dim": keys[:2], "rgb": keys[2:]})
    windows = SequenceDataset(
        str(path),
        obs_keys=keys,
        dataset_keys=["actions", "rewards", "dones"],
        frame_stack=2,
        seq_length=3,
        hdf5_use_swmr=False,
        hdf5_cache_mode=None,
        filter_by_attribute="train",
        load_next_obs=False,
    )
    assert len(windows) == 10
    item = windows[4 + 2]  # step 2 of demo_10
    expected = arrays_of("demo_10")
    np.testing.assert_array_equal(item["obs"]["object"], expected["obs/object"][1:5])
    np.testing.assert_array_equal(item["obs"]["agentview_image"], expected["obs/agentview_image"][1:5])
    np.testing.assert_array_equal(item["actions"], expected["actions"][1:5])


def test_next_observations(tmp_path):
    """Those of numbers are kept, also of an episode in several pieces; those of pictures are a view."""
    wide, frames = np.random.default_rng(0).normal(size=(70, 20_000)), np.zeros((70, 8, 8, 3), np.uint8)
    frames[:, 0, 0, 0] = range(70)
    made = Episodes({"action": np.ones((70, 2)), "wide": wide, "frames": frames}, [1, 70])
    write_episodes(tmp_path / "x.hdf5", MemoryReader(made), "robomimic")
    with h5py.File(tmp_path / "x.hdf5") as handle:
        for demo, following in (("demo_0", [0]), ("demo_1", [*range(2, 70), 69])):
            numbers, pictures = handle[f"data/{demo}/next_obs/wide"], handle[f"data/{demo}/next_obs/frames"]
            np.testing.assert_array_equal(numbers[:], wide[following])
            np.testing.assert_array_equal(pictures[:], frames[following])
            assert (numbers.is_virtual, pictures.is_virtual) == (False, True)
    assert read_episodes(tmp_path / "x.hdf5").arrays.keys() == made.arrays.keys()


def test_facts_that_no_attribute_can_hold(tmp_path):
    facts = {"note": "a\0b", "count": 10**30, "name": "x", "fine": 1}
    made = Episodes({"action": np.ones((8, 2))}, [8], "", facts, ({**facts, "num_samples": 9},))
    write_episodes(tmp_path / "x.hdf5", MemoryReader(made), "robomimic")
    read = read_episodes(tmp_path / "x.hdf5")
    assert (read.metadata, read.episode_metadata) == (made.metadata, made.episode_metadata)


@pytest.mark.parametrize("key", ["extra.obs/x", "x/y", "."])
def test_keys_without_a_place(tmp_path, key):
    arrays = {"action": np.ones((8, 2)), "x": np.ones((8, 1)), key: np.ones((8, 1))}
    with pytest.raises(UserError, match=rf"here: key '{key}' has no place in robomimic's layout; rename it"):
        write_episodes(tmp_path / "x.hdf5", MemoryReader(Episodes(arrays, [8], "here")), "robomimic")
    assert list(tmp_path.iterdir()) == []


def test_no_action(tmp_path):
    reader = MemoryReader(Episodes({"state": np.ones((8, 2))}, [8], "here"))
    with pytest.raises(UserError, match=r"here: has no key 'action', which robomimic needs"):
        write_episodes(tmp_path / "x.hdf5", reader, "robomimic")
    assert list(tmp_path.iterdir()) == []


def test_interrupted(tmp_path):
    def stop(done, steps):
        raise KeyboardInterrupt

    reader = MemoryReader(Episodes({"action": np.ones((8, 2))}, [8]))
    with pytest.raises(KeyboardInterrupt):
        write_episodes(tmp_path / "x.hdf5", reader, "robomimic", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_disk_full(tmp_path):
    """A file that may not grow further, as on a full disk."""
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        reader = MemoryReader(Episodes({"action": np.ones((100_000, 2))}, [100_000]))
        with pytest.raises(UserError, match=r"x\.hdf5: cannot write it \(.*[Ff]ile too large.*\)"):
            write_episodes(tmp_path / "x.hdf5", reader, "robomimic")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
