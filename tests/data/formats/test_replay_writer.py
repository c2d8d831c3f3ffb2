import errno
import os
import shutil

import numpy as np
import pytest
import zarr
from support.data import write_zarr
from zarr.storage import ZipStore

from policy_accel.data import Episodes, read_episodes
from policy_accel.errors import UserError

STORES = [(fmt, suffix) for fmt in (2, 3) for suffix in (".zarr", ".zarr.zip")]


def episodes(steps=1000):
    rng = np.random.default_rng(1)
    arrays = {
        "action": rng.normal(size=(steps, 2)).astype(np.float32),
        "img": rng.integers(0, 256, size=(steps, 12, 12, 3), dtype=np.uint8),
        "keypoint": rng.normal(size=(steps, 9, 2)),
    }
    return Episodes(arrays, np.array([steps // 4, steps // 2, steps]), "made")


@pytest.mark.parametrize(("fmt", "suffix"), STORES)
def test_round_trip(tmp_path, fmt, suffix):
    made = episodes()
    path = tmp_path / f"deep/er/demo{suffix}"
    write_zarr(path, made, zarr_format=fmt)
    read = read_episodes(path)
    assert read.source == str(path)
    assert read.arrays.keys() == made.arrays.keys()
    for key, values in made.arrays.items():
        assert read.arrays[key].dtype == values.dtype
        np.testing.assert_array_equal(read.arrays[key], values)
    np.testing.assert_array_equal(read.episode_ends, made.episode_ends)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(("fmt", "suffix"), STORES)
def test_layout_as_plain_zarr_sees_it(tmp_path, fmt, suffix):
    made = Episodes({"img": np.zeros((1000, 96, 96, 3), np.uint8), "action": np.ones((1000, 2), np.float32)}, [1000])
    write_zarr(tmp_path / f"x{suffix}", made, zarr_format=fmt)
    path = tmp_path / f"x{suffix}"
    root = zarr.open_group(ZipStore(path, mode="r") if suffix == ".zarr.zip" else path, mode="r")
    assert root.metadata.zarr_format == fmt
    assert root["data/img"].chunks == (72, 96, 96, 3)  # 72 * 27,648 bytes = 1.99 MB
    assert root["data/action"].chunks == (1000, 2)
    assert root["meta/episode_ends"].dtype == np.int64
    assert not root["meta/episode_ends"].compressors
    assert "blosc" in repr(root["data/img"].compressors[0]).lower()
    assert root["data/img"].nchunks_initialized == root["data/img"].nchunks == 14
    np.testing.assert_array_equal(root["data/action"][:], made.arrays["action"])


def test_only_the_keys_asked_for(tmp_path):
    write_zarr(tmp_path / "x.zarr", episodes())
    shutil.rmtree(tmp_path / "x.zarr/data/img")
    assert list(read_episodes(tmp_path / "x.zarr", ["keypoint", "action"]).arrays) == ["keypoint", "action"]


def test_real_file(shared_data):
    keys = ["state", "action", "keypoint"]
    read = read_episodes(shared_data / "pusht_v7_u8.zarr.zip", keys)
    assert (len(read), read.steps) == (206, 25650)
    np.testing.assert_allclose(read.arrays["state"][0], [222, 97, 222.99382, 381.59903, 3.0079994], rtol=1e-7)
    assert read.arrays["action"][0].tolist() == [233, 71]
    lowdim = np.load(shared_data / "pusht_lowdim.npz")
    for key in keys:
        np.testing.assert_array_equal(read.arrays[key], lowdim[key])
    np.testing.assert_array_equal(read.episode_ends, lowdim["episode_ends"])


@pytest.mark.parametrize("key", ["actions", "meta"])
def test_unknown_key(tmp_path, key, plain_zarr):
    path = plain_zarr(tmp_path / "x.zarr")
    hint = {"actions": "did you mean 'action'", "meta": "known are: action"}[key]
    with pytest.raises(UserError, match=rf"x\.zarr: has no key '{key}'; {hint}"):
        read_episodes(path, [key])


def test_missing_episode_ends(tmp_path, plain_zarr):
    path = plain_zarr(tmp_path / "x.zarr", ends=None)
    with pytest.raises(UserError, match=r"x\.zarr: meta/episode_ends is missing; .* write it there"):
        read_episodes(path)


@pytest.mark.parametrize(
    ("arrays", "ends", "words"),
    [
        ({"action": np.ones((10, 2)), "state": np.ones((9, 5))}, [8], "data/action 10, data/state 9"),
        ({"action": np.ones((10, 2))}, [4, 12], "episode_ends goes to step 12, past the data"),
        ({"action": np.ones((10, 2))}, [4, 2], "not increasing"),
        ({"action": np.array([[1.0], [np.nan]])}, [2], r"data/action holds NaN at step 1 \(episode 0"),
    ],
)
def test_faults_of_the_content_name_the_file(tmp_path, arrays, ends, words, plain_zarr):
    path = plain_zarr(tmp_path / "x.zarr", arrays=arrays, ends=ends)
    with pytest.raises(UserError, match=rf"x\.zarr: .*{words}"):
        read_episodes(path)


def test_chunk_that_is_not_stored_is_told(tmp_path, plain_zarr):
    path = plain_zarr(tmp_path / "x.zarr")
    (path / "data/action/2.0").unlink()
    with pytest.warns(
        UserWarning, match=r"x\.zarr: 1 of 3 chunks of data/action are not stored, .*copy the file again"
    ):
        assert read_episodes(path).arrays["action"][9].tolist() == [0, 0]


@pytest.mark.parametrize("mode", [0o500, 0])
@pytest.mark.parametrize("suffix", [".zarr", ".zarr.zip"])
def test_no_permission_to_write(unprivileged, suffix, mode):
    unprivileged.chmod(mode)
    with pytest.raises(UserError, match=rf"x{suffix}: no permission to write it; .*choose another path"):
        write_zarr(unprivileged / f"x{suffix}", episodes(8))


@pytest.mark.parametrize(("fmt", "suffix"), STORES)
def test_disk_full(tmp_path, monkeypatch, fmt, suffix):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=rf"x{suffix}: the disk is full, cannot write it; free some space"):
        write_zarr(tmp_path / f"x{suffix}", episodes(), zarr_format=fmt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".zarr", ".zarr.zip"])
def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch, suffix):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_zarr(tmp_path / f"x{suffix}", episodes())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".zarr", ".zarr.zip"])
def test_nothing_is_overwritten(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_text("precious")
    monkeypatch.setattr(
        "policy_accel.data.formats.replay_buffer._NewArray", lambda *_: pytest.fail("work done in vain")
    )
    with pytest.raises(UserError, match=rf"x{suffix}: exists already and is not overwritten; remove it or choose"):
        write_zarr(path, episodes())
    assert path.read_text() == "precious"


def test_file_that_appears_while_writing_is_not_overwritten(tmp_path, monkeypatch):
    path = tmp_path / "x.zarr.zip"
    monkeypatch.setattr(os, "fsync", lambda descriptor: path.write_text("precious"))
    with pytest.raises(UserError, match=r"x\.zarr\.zip: exists already and is not overwritten"):
        write_zarr(path, episodes())
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fmt", [2, 3])
def test_equal_episodes_give_equal_bytes(tmp_path, fmt):
    for name in ("a.zip", "b.zip"):
        write_zarr(tmp_path / name, episodes(), zarr_format=fmt)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/x\.zarr: cannot write it, a file stands where a folder is needed"):
        write_zarr(tmp_path / "file/x.zarr", episodes(8))


def test_unknown_zarr_format(tmp_path):
    with pytest.raises(UserError, match=r"zarr_format '4' is unknown; known are: 2, 3"):
        write_zarr(tmp_path / "x.zarr", episodes(), zarr_format=4)
    assert list(tmp_path.iterdir()) == []
