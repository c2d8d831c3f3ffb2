import os

import numcodecs
import numpy as np
import pytest
import zarr
from support.data import write_zarr

from policy_accel.data import Episodes, read_episodes
from policy_accel.errors import UserError


@pytest.mark.parametrize("fmt", [2, 3])
@pytest.mark.parametrize("inside", ["", "pusht/pusht_cchi_v7_replay.zarr/", "data/x.zarr/", ".hidden/"])
def test_written_by_plain_zarr(tmp_path, fmt, inside, plain_zarr, zip_folder):
    arrays = {"action": np.random.default_rng(0).normal(size=(10, 2)), "data": np.arange(10)}
    folder = plain_zarr(tmp_path / "outer" / inside, fmt=fmt, arrays=arrays)
    archive = zip_folder(folder, tmp_path / "download", inside)
    for path in (folder, tmp_path / "outer", archive):
        read = read_episodes(path)
        assert read.episode_ends.tolist() == [4, 10]
        np.testing.assert_array_equal(read.arrays["action"], arrays["action"])
        np.testing.assert_array_equal(read.arrays["data"], arrays["data"])


def test_uncompressed_and_lz4_and_no_group_files(tmp_path, plain_zarr):
    for name, codec in (("raw", None), ("lz4", numcodecs.Blosc("lz4", 5, numcodecs.Blosc.NOSHUFFLE))):
        path = plain_zarr(tmp_path / name, compressors=codec)
        for group in path.rglob(".zgroup"):
            group.unlink()
        assert read_episodes(path).arrays["action"][9].tolist() == [19, 20]


def test_missing_path(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.zarr: does not exist, cannot read it; check the path"):
        read_episodes(tmp_path / "nowhere.zarr")


def test_not_a_replay_buffer(tmp_path):
    (tmp_path / "x.hdf5").write_bytes(b"\x89HDF\r\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder/a/b").mkdir(parents=True)
    (tmp_path / "folder/a/b/notes.txt").write_text("nothing")
    np.savez(tmp_path / "x.npz", state=np.zeros(3))
    zarr.create_array(tmp_path / "lone.zarr", data=np.zeros(3), zarr_format=2)
    for name, found in [
        ("x.hdf5", r"begins with b'\\x89HDF'"),
        ("empty", "found nothing in it"),
        ("folder", "found a;"),
        ("x.npz", r"found state\.npy"),
        ("lone.zarr", r"found \.zarray"),
    ]:
        with pytest.raises(UserError, match=rf"{name}: not a replay buffer: .*{found}.*expected .*meta/episode_ends"):
            read_episodes(tmp_path / name)


def test_several_buffers(tmp_path, plain_zarr):
    for name in ("a.zarr", "b.zarr"):
        plain_zarr(tmp_path / "all" / name)
    with pytest.raises(
        UserError, match=r"all: holds several replay buffers \(a\.zarr, b\.zarr\); give the path of one"
    ):
        read_episodes(tmp_path / "all")


@pytest.mark.parametrize("part", [0.02, 0.5, 0.999])
def test_truncated_zip(tmp_path, part):
    path = tmp_path / "x.zarr.zip"
    write_zarr(path, Episodes({"action": np.random.default_rng(0).normal(size=(1000, 2))}, [1000]))
    size = int(path.stat().st_size * part)
    os.truncate(path, size)
    with pytest.raises(
        UserError, match=rf"x\.zarr\.zip: the zip is truncated .* after {size} bytes .*download it again"
    ):
        read_episodes(path)


@pytest.mark.parametrize("fmt", [2, 3])
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_damaged_chunk(tmp_path, fmt, damage, plain_zarr):
    path = plain_zarr(tmp_path / "x.zarr", fmt=fmt)
    chunk = path / {2: "data/action/1.0", 3: "data/action/c/1/0"}[fmt]
    chunk.write_bytes(chunk.read_bytes()[:5] if damage == "cut" else b"\xff" * 40)
    with pytest.raises(UserError, match=r"x\.zarr: data/action has a damaged chunk at steps 4\.\.7 .*copy or download"):
        read_episodes(path)


def test_flipped_byte_in_a_zip(tmp_path, plain_zarr, zip_folder):
    folder = plain_zarr(tmp_path / "x.zarr", compressors=None)
    path = zip_folder(folder, tmp_path / "x.zip")
    content = path.read_bytes()
    needle = np.float32([9, 10]).tobytes()
    assert content.count(needle) == 1
    path.write_bytes(content.replace(needle, np.float32([9, 11]).tobytes()))
    with pytest.raises(UserError, match=r"x\.zip: data/action has a damaged chunk at steps 4\.\.7 \(Bad CRC-32"):
        read_episodes(path)


@pytest.mark.parametrize(("fmt", "name"), [(2, ".zarray"), (3, "zarr.json")])
def test_damaged_metadata(tmp_path, fmt, name, plain_zarr):
    path = plain_zarr(tmp_path / "x.zarr", fmt=fmt)
    file = path / "data/action" / name
    file.write_text(file.read_text()[:50])
    with pytest.raises(UserError, match=r"x\.zarr: data/action cannot be opened .*metadata is damaged .*copy the file"):
        read_episodes(path)


def test_unknown_codec(tmp_path, plain_zarr):
    path = plain_zarr(tmp_path / "x.zarr")
    file = path / "data/action/.zarray"
    file.write_text(file.read_text().replace('"blosc"', '"jpeg2k"').replace('"zstd"', '"jpeg2k"'))
    with pytest.raises(UserError, match=r"data/action is stored with the codec 'jpeg2k'.*write it with Blosc"):
        read_episodes(path)


@pytest.mark.parametrize("suffix", [".zarr", ".zarr.zip"])
def test_no_permission_to_read(unprivileged, suffix):
    path = unprivileged / f"x{suffix}"
    write_zarr(path, Episodes({"action": np.ones((8, 2))}, [8]))
    path.chmod(0)
    with pytest.raises(UserError, match=rf"x{suffix}: no permission to read it; change the permissions"):
        read_episodes(path)
