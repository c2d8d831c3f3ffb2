"""DPPO's NPZ: files written by NumPy alone, real files, and ours as NumPy sees them."""

import os
import zipfile

import numpy as np
import pytest

from policy_accel.data import Episodes, inspect, read_episodes
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.readers import open_episodes, write_episodes
from policy_accel.errors import UserError

LENGTHS = np.array([4, 1, 7])


def dppo(cameras=2):
    rng = np.random.default_rng(0)
    return {
        "states": rng.uniform(-1, 1, size=(12, 9)).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(12, 7)).astype(np.float32),
        "rewards": rng.random(12),
        "terminals": np.zeros(12, dtype=bool),
        "traj_lengths": LENGTHS,
        "images": rng.integers(0, 256, size=(12, 3 * cameras, 8, 10), dtype=np.uint8),
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_layout_of_dppo(tmp_path, save):
    arrays = dppo()
    save(tmp_path / "train.npz", **arrays)
    read = read_episodes(tmp_path / "train.npz")
    assert read.lengths.tolist() == LENGTHS.tolist()
    for stored, key in {"states": "state", "actions": "action", "rewards": "reward", "terminals": "done"}.items():
        assert read.arrays[key].dtype == arrays[stored].dtype
        np.testing.assert_array_equal(read.arrays[key], arrays[stored])
    assert set(read.arrays) == {"state", "action", "reward", "done", "image_0", "image_1"}
    np.testing.assert_array_equal(read.arrays["image_1"][5, 3, 4], arrays["images"][5, 3:6, 3, 4])
    assert read.arrays["image_0"].shape == (12, 8, 10, 3)
    assert (read.metadata, read.episode_metadata) == ({}, ())


def test_one_camera(tmp_path):
    np.savez(tmp_path / "train.npz", **dppo(1))
    assert read_episodes(tmp_path / "train.npz", ["image"]).arrays["image"].shape == (12, 8, 10, 3)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_pieces_in_any_order(tmp_path, save):
    arrays = dppo()
    arrays["columns"] = np.asfortranarray(np.arange(36.0).reshape(12, 3))
    save(tmp_path / "train.npz", **arrays)
    with open_episodes(tmp_path / "train.npz") as reader:
        for episode, start, stop in ((2, 3, 5), (0, 0, None), (2, 0, 7), (1, 0, 1), (2, 6, 7)):
            first = [0, 4, 5][episode]
            rows = slice(first + start, first + (LENGTHS[episode] if stop is None else stop))
            read = reader.read(episode, ["state", "reward", "columns"], start, stop)
            np.testing.assert_array_equal(read["state"], arrays["states"][rows])
            np.testing.assert_array_equal(read["reward"], arrays["rewards"][rows])
            np.testing.assert_array_equal(read["columns"], arrays["columns"][rows])


def test_real_file_with_initial_states(shared_data):
    path = shared_data / "adroit_door_human.npz"
    read, stored = read_episodes(path), np.load(path)
    assert (len(read), read.steps) == (25, 6729)
    np.testing.assert_array_equal(read.arrays["observation"], stored["observations"])
    np.testing.assert_array_equal(read.arrays["action"], stored["actions"])
    np.testing.assert_array_equal(read.arrays["reward"], stored["rewards"])
    for name in ("init_qpos", "init_qvel", "init_door_body_pos"):
        np.testing.assert_array_equal([facts[name] for facts in read.episode_metadata], stored[name])


def test_real_file_with_ends(shared_data):
    path = shared_data / "pusht_lowdim.npz"
    read, stored = read_episodes(path), np.load(path)
    for key in ("state", "action", "keypoint", "n_contacts", "episode_ends"):
        np.testing.assert_array_equal(read.episode_ends if key == "episode_ends" else read.arrays[key], stored[key])


def test_other_arrays_are_facts(tmp_path):
    np.savez(tmp_path / "x.npz", **dppo(), version=np.float64(1.5), limits=np.array([[0, 1]]), robot="panda")
    read = read_episodes(tmp_path / "x.npz")
    assert read.metadata == {"version": 1.5, "limits": [[0, 1]], "robot": "panda"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"states": np.zeros((11, 9))}, "the arrays differ in their number of steps (data/state 11, data/action 12"),
        ({"traj_lengths": np.array([4, 9])}, "episode_ends goes to step 13, past the data, which has 12 steps"),
        ({"traj_lengths": np.array([5, 0, 7])}, "from traj_lengths: episode_ends is not increasing"),
        ({"actions": np.full((12, 7), np.nan)}, "data/action holds NaN at step 0 (episode 0, its step 0)"),
        ({"actions": np.array([{}] * 12)}, "actions holds Python objects, which are never unpickled"),
    ],
)
def test_faults(tmp_path, changes, words):
    np.savez(tmp_path / "train.npz", **{**dppo(), **changes})
    with pytest.raises(UserError) as error:
        read_episodes(tmp_path / "train.npz")
    assert str(error.value).startswith(f"{tmp_path / 'train.npz'}: ")
    assert words in str(error.value)


def test_flipped_byte(tmp_path):
    path = tmp_path / "train.npz"
    arrays = dppo()
    np.savez(path, **arrays)
    content, needle = bytearray(path.read_bytes()), arrays["actions"][7].tobytes()
    content[content.index(needle)] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=r"train\.npz: actions is damaged \(Bad CRC-32.*copy or download the file again"
    ):
        read_episodes(path)


def test_truncated(tmp_path):
    path = tmp_path / "train.npz"
    np.savez(path, **dppo())
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match=r"train\.npz: the zip is truncated or damaged"):
        read_episodes(path)


def made():
    rng = np.random.default_rng(1)
    arrays = {
        "action": rng.normal(size=(12, 7)).astype(np.float32),
        "object": rng.normal(size=(12, 10)),
        "eef_pos": rng.normal(size=(12, 3)).astype(np.float32),
        "keypoint": rng.normal(size=(12, 9, 2)).astype(np.float32),
        "reward": rng.random(12),
        "done": np.arange(12) % 2 == 0,
        "front": rng.integers(0, 256, size=(12, 8, 10, 3), dtype=np.uint8),
        "wrist": rng.integers(0, 256, size=(12, 8, 10, 3), dtype=np.uint8),
        "far": rng.integers(0, 256, size=(12, 4, 4, 3), dtype=np.uint8),
        "sim_state": rng.normal(size=(12, 32)),
        "states": rng.integers(0, 9, size=(12, 2)),
    }
    return Episodes(arrays, np.cumsum(LENGTHS), "made", {"fps": 10}, ({"task": "a"}, {}, {"task": "b"}))


def test_ours_as_dppo_loads_it(tmp_path):
    """DPPO takes the arrays out of np.load(..., allow_pickle=False) by name."""
    episodes = made()
    write_episodes(tmp_path / "train.npz", MemoryReader(episodes), "npz")
    loaded = np.load(tmp_path / "train.npz", allow_pickle=False)
    assert loaded["traj_lengths"].tolist() == LENGTHS.tolist()
    expected = [episodes.arrays[key].reshape(12, -1) for key in ("object", "eef_pos", "keypoint")]
    np.testing.assert_array_equal(loaded["states"], np.concatenate(expected, axis=1))
    np.testing.assert_array_equal(loaded["actions"], episodes.arrays["action"])
    np.testing.assert_array_equal(loaded["rewards"], episodes.arrays["reward"])
    np.testing.assert_array_equal(loaded["terminals"], episodes.arrays["done"])
    assert loaded["terminals"].dtype == bool
    assert loaded["images"].shape == (12, 6, 8, 10)
    np.testing.assert_array_equal(loaded["images"][:, 3:].transpose(0, 2, 3, 1), episodes.arrays["wrist"])
    np.testing.assert_array_equal(loaded["sim_state"], episodes.arrays["sim_state"])


def test_ours_comes_back(tmp_path):
    episodes = made()
    write_episodes(tmp_path / "train.npz", MemoryReader(episodes), "npz")
    read = read_episodes(tmp_path / "train.npz")
    assert read.arrays.keys() == episodes.arrays.keys()
    for key, values in episodes.arrays.items():
        assert read.arrays[key].dtype == values.dtype
        np.testing.assert_array_equal(read.arrays[key], values)
    assert (read.metadata, read.episode_metadata) == (episodes.metadata, episodes.episode_metadata)


def test_equal_episodes_give_equal_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        write_episodes(tmp_path / name, MemoryReader(made()), "npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_facts_can_be_read_in_any_order(tmp_path):
    write_episodes(tmp_path / "train.npz", MemoryReader(made()), "npz")
    with open_episodes(tmp_path / "train.npz") as reader:
        assert [reader.episode_metadata(episode).get("task") for episode in (2, 0, 1, 2)] == ["b", "a", None, "b"]


def test_damaged_column_table(tmp_path):
    path = tmp_path / "train.npz"
    write_episodes(path, MemoryReader(made()), "npz")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "bad.npz", "w") as bad:
        for name in archive.namelist():
            bad.writestr(name, b"{" if name == "policy_accel.json" else archive.read(name))
    with pytest.raises(UserError, match=r"bad\.npz: policy_accel\.json is damaged"):
        read_episodes(tmp_path / "bad.npz")


def test_report(tmp_path):
    write_episodes(tmp_path / "train.npz", MemoryReader(made()), "npz")
    text = inspect(tmp_path / "train.npz").text
    assert "episodes: 3, steps: 12" in text
    assert "  fps: 10" in text
    assert "  tasks: a (1), b (1) episodes" in text
