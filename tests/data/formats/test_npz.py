"""DPPO's NPZ: files written by NumPy alone, real files, and ours as NumPy sees them."""

import os
import subprocess
import sys
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
        ({"states": np.zeros((11, 9))}, "'state' cannot be used: states has 11 rows and the episodes have 12 steps"),
        (
            {"traj_lengths": [4, 9]},
            "traj_lengths is [4, 9], in all 13; it needs the number of steps of every episode, of all rows (states 12",
        ),
        ({"traj_lengths": [5, -1, 8]}, "traj_lengths is [5, -1, 8], in all 12; it needs the number of steps of every"),
        (
            {"traj_lengths": [5, 0, 7]},
            "episode 1 has no step; take it out of the file; or leave such episodes out with",
        ),
        ({"actions": np.full((12, 7), np.nan)}, "data/action holds NaN at step 0 (episode 0, its step 0)"),
        ({"actions": np.array([{}] * 12)}, "actions is pickled (Python objects), and pickles are never opened"),
        ({"actions": np.array(["left"] * 12)}, "actions is [12] <U4, neither numbers of 12 steps nor of 3 episodes"),
    ],
)
def test_faults_of_what_is_asked_for(tmp_path, changes, words):
    np.savez(tmp_path / "train.npz", **{**dppo(), **changes})
    with pytest.raises(UserError) as error:
        read_episodes(tmp_path / "train.npz", ["state", "action"])
    assert str(error.value).startswith(f"{tmp_path / 'train.npz'}: ")
    assert words in str(error.value)


def test_what_is_not_asked_for_may_be_anything(tmp_path):
    others = {"info": np.array([{}] * 3), "text": np.array(["a"] * 12), "rewards": np.zeros(11)}
    np.savez(tmp_path / "train.npz", **{**dppo(), **others})
    with pytest.warns(UserWarning, match=r"left out: 'info', since info is pickled .*; 'text', .*; 'reward', since"):
        read = read_episodes(tmp_path / "train.npz")
    assert set(read.arrays) == {"state", "action", "done", "image_0", "image_1"}
    np.testing.assert_array_equal(read.arrays["state"], dppo()["states"])


def test_an_empty_episode_is_skipped(tmp_path):
    np.savez(tmp_path / "x.npz", **{**dppo(), "traj_lengths": [5, 0, 7]}, goal=[[1.0], [2.0], [3.0]])
    with pytest.warns(UserWarning, match="episode 1 is left out: it has no step"):
        read = read_episodes(tmp_path / "x.npz", skip_bad_episodes=True)
    assert read.lengths.tolist() == [5, 7]
    assert [facts["goal"] for facts in read.episode_metadata] == [[1.0], [3.0]]


@pytest.mark.parametrize(
    "lengths", [np.float32([4, 1, 7]), np.uint8([[4], [1], [7]]), np.array([4, 1, 7], ">i2"), [4, 1, 7]]
)
def test_lengths_of_any_type(tmp_path, lengths):
    np.savez(tmp_path / "x.npz", **{**dppo(), "traj_lengths": lengths})
    assert read_episodes(tmp_path / "x.npz").lengths.tolist() == [4, 1, 7]


def test_ends_of_six_lines(tmp_path):
    """What the documentation tells anyone to write; also in the byte order and the memory order of others."""
    state, action = np.arange(24, dtype=">f8").reshape(12, 2), np.asfortranarray(np.arange(36.0).reshape(12, 3))
    np.savez(tmp_path / "mine.npz", state=state, action=action, keypoint=np.ones((12, 9, 2)), episode_ends=[4, 12])
    read = read_episodes(tmp_path / "mine.npz")
    assert read.episode_ends.tolist() == [4, 12]
    assert read.arrays["state"].dtype == np.dtype("=f8")
    np.testing.assert_array_equal(read.arrays["state"], state)
    np.testing.assert_array_equal(read.arrays["action"], action)


def d4rl(**flags):
    return {"observations": np.ones((12, 3)), "actions": np.zeros((12, 2)), **flags}


def test_episodes_by_flags_of_d4rl(tmp_path):
    flags = {"terminals": np.zeros((12, 1), bool), "timeouts": np.zeros(12)}
    flags["terminals"][3], flags["timeouts"][9] = True, 1
    np.savez(tmp_path / "x.npz", **d4rl(**flags))
    said = "where terminals or timeouts is 1 and after the last step, which makes 3 of 2 to 6 steps, the last of 2"
    with pytest.warns(UserWarning, match=said):
        assert read_episodes(tmp_path / "x.npz").episode_ends.tolist() == [4, 10, 12]
    np.savez(tmp_path / "y.npz", **d4rl(dones=np.arange(12) % 6 == 5))
    with pytest.warns(UserWarning, match=r"where dones is 1, which makes 2 of 6 to 6 steps, the last of 6\.$"):
        assert read_episodes(tmp_path / "y.npz").episode_ends.tolist() == [6, 12]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (
            d4rl(),
            "holds demonstrations without the lengths of their episodes (observations float64 [12, 3], actions ",
        ),
        (d4rl(terminals=np.zeros(12)), "traj_lengths, or 1 at last steps in terminals."),
        (d4rl(dones=np.full(12, 0.5)), "traj_lengths, or 1 at last steps in dones."),
        ({"episodes": np.array([{"a": 1}, 2])}, "episodes is pickled (Python objects)"),
    ],
)
def test_without_lengths(tmp_path, arrays, words):
    np.savez(tmp_path / "x.npz", **arrays)
    for look in (open_episodes, inspect):
        with pytest.raises(UserError, match=r"x\.npz: ") as error:
            look(tmp_path / "x.npz")
        assert words in str(error.value)


def test_images_with_channels_last_are_one_camera(tmp_path):
    np.savez(tmp_path / "x.npz", **{**dppo(), "images": np.zeros((12, 6, 6, 3), np.uint8)})
    assert read_episodes(tmp_path / "x.npz").arrays["images"].shape == (12, 6, 6, 3)


def rewritten(path, target, change):
    """A copy of an NPZ with other members: change(name, content) -> content, or None to leave it out."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for name in archive.namelist():
            content = change(name, archive.read(name))
            if content is not None:
                out.writestr(name, content)
    return target


@pytest.mark.parametrize(
    "header", [b"'shape': (1000000000, 7)", b"'shape': (-12, 7)", b"'shape': (12, 7", b"'shape': (12, " + b"(" * 9000]
)
def test_headers_that_lie(tmp_path, header):
    """Refused with one sentence, and only when that array is read."""
    np.savez(tmp_path / "in.npz", **dppo())
    lied = rewritten(
        tmp_path / "in.npz",
        tmp_path / "x.npz",
        lambda name, content: content.replace(b"'shape': (12, 7)", header) if name == "actions.npy" else content,
    )
    for keys in (None, ["action"]):
        with pytest.raises(UserError, match=r"x\.npz: actions is damaged"):
            read_episodes(lied, keys)
    with pytest.warns(UserWarning, match="left out: 'action', since actions is damaged"):
        assert list(read_episodes(lied, ["state"]).arrays) == ["state"]


def test_a_member_that_unpacks_to_more_than_anyone_packs(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", **{**dppo(), "actions": np.zeros((12, 400_000))})
    with pytest.raises(UserError, match=r"x\.npz: actions has .* unpacks to 38,400,128, more than a hundred times"):
        read_episodes(tmp_path / "x.npz", ["action"])


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
    with pytest.raises(UserError, match=r"train\.npz: the zip of \d+ bytes is damaged"):
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


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("policy_accel.json", b"{", b"", "policy_accel.json is damaged"),
        ("policy_accel.json", b'"metadata": {', b'"metadata": ' + b"[" * 100_000, "policy_accel.json is damaged"),
        (
            "policy_accel.json",
            b'"<f4"',
            b'"|i1"',
            "policy_accel.json is damaged (a key is said to be |i1, and actions is float32",
        ),
        ("policy_accel.json", b"[10]", b"[1000000000]", "policy_accel.json is damaged"),
        ("policy_accel_episodes.jsonl", b"\n{}\n", b"\n", "policy_accel_episodes.jsonl is damaged (2 lines for 3"),
        (
            "policy_accel_episodes.jsonl",
            b'{"task": "a"}',
            b"[" * 100_000,
            "policy_accel_episodes.jsonl is damaged (nested too deeply",
        ),
        ("actions.npy", None, None, "actions is missing; copy the file again"),
    ],
)
def test_damaged_facts_of_ours(tmp_path, name, old, new, words):
    write_episodes(tmp_path / "train.npz", MemoryReader(made()), "npz")

    def change(member, content):
        if member != name:
            return content
        assert old is None or old in content
        return None if old is None else content.replace(old, new, 1)

    bad = rewritten(tmp_path / "train.npz", tmp_path / "bad.npz", change)
    with pytest.raises(UserError, match=r"bad\.npz: ") as error:
        read_episodes(bad)
    assert words in str(error.value)


def test_report(tmp_path):
    write_episodes(tmp_path / "train.npz", MemoryReader(made()), "npz")
    text = inspect(tmp_path / "train.npz").text
    assert "episodes: 3, steps: 12" in text
    assert "  fps: 10" in text
    assert "  tasks: a (1), b (1) episodes" in text


def test_only_the_arrays_that_are_asked_for_are_read(tmp_path, monkeypatch):
    np.savez(tmp_path / "train.npz", **dppo())
    read, read_array = [], np.lib.format.read_array

    def noted(file, **options):
        read.append(file.name)
        return read_array(file, **options)

    monkeypatch.setattr(np.lib.format, "read_array", noted)
    assert read_episodes(tmp_path / "train.npz", ["action", "state"]).arrays.keys() == {"action", "state"}
    assert sorted(read) == ["actions.npy", "states.npy", "traj_lengths.npy"]
    code = f"import sys; from policy_accel.data import inspect; inspect({str(tmp_path / 'train.npz')!r}); "
    subprocess.run([sys.executable, "-c", code + "assert not {'h5py', 'zarr'} & set(sys.modules)"], check=True)
