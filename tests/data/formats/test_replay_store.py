import json
import os
import zipfile

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
    zarr.create_array(tmp_path / "lone.zarr", data=np.zeros(3), zarr_format=2)
    for name, found in [
        ("x.hdf5", r"begins with b'\\x89HDF'"),
        ("empty", "found nothing in it"),
        ("folder", r"found a/b/notes\.txt;"),
        ("lone.zarr", r"found \.zarray"),
    ]:
        with pytest.raises(UserError, match=rf"{name}: not a replay buffer: .*{found}.*expected .*meta/episode_ends"):
            read_episodes(tmp_path / name)


def test_several_buffers(tmp_path, plain_zarr):
    for name in ("a.zarr", "b.zarr"):
        plain_zarr(tmp_path / "all" / name)
    with pytest.raises(
        UserError, match=r"all: holds several replay buffers: found a\.zarr/, b\.zarr/; expected one zarr"
    ):
        read_episodes(tmp_path / "all")


@pytest.mark.parametrize("part", [0.02, 0.5, 0.999])
def test_truncated_zip(tmp_path, part):
    path = tmp_path / "x.zarr.zip"
    write_zarr(path, Episodes({"action": np.random.default_rng(0).normal(size=(1000, 2))}, [1000]))
    size = int(path.stat().st_size * part)
    os.truncate(path, size)
    with pytest.raises(UserError, match=rf"x\.zarr\.zip: the zip of {size} bytes is damaged .*copy or download"):
        read_episodes(path)


@pytest.mark.parametrize("fmt", [2, 3])
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_damaged_chunk(tmp_path, fmt, damage, plain_zarr):
    path = plain_zarr(tmp_path / "x.zarr", fmt=fmt)
    chunk = path / {2: "data/action/1.0", 3: "data/action/c/1/0"}[fmt]
    chunk.write_bytes(chunk.read_bytes()[:5] if damage == "cut" else b"\xff" * 40)
    with pytest.raises(UserError, match=r"x\.zarr: a chunk of data/action at steps 4\.\.7 is damaged .*copy or"):
        read_episodes(path)


def test_flipped_byte_in_a_zip(tmp_path, plain_zarr, zip_folder):
    folder = plain_zarr(tmp_path / "x.zarr", compressors=None)
    path = zip_folder(folder, tmp_path / "x.zip")
    content = path.read_bytes()
    needle = np.float32([9, 10]).tobytes()
    assert content.count(needle) == 1
    path.write_bytes(content.replace(needle, np.float32([9, 11]).tobytes()))
    with pytest.raises(UserError, match=r"x\.zip: a chunk of data/action at steps 4\.\.7 is damaged \(Bad CRC-32"):
        read_episodes(path)


@pytest.mark.parametrize(("fmt", "name"), [(2, ".zarray"), (3, "zarr.json")])
def test_damaged_metadata(tmp_path, fmt, name, plain_zarr):
    path = plain_zarr(tmp_path / "x.zarr", fmt=fmt)
    file = path / "data/action" / name
    file.write_text(file.read_text()[:50])
    with pytest.raises(UserError, match=r"x\.zarr: data/action/.* is damaged .*copy or"):
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


def edited(path, **changes):
    """The metadata of an array with other values."""
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps(metadata | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": [-10, 2]}, r"data/action/.zarray is damaged \(.*\[-10, 2\]"),
        ({"chunks": [0, 2]}, r"data/action/.zarray is damaged .*its chunks are \[0, 2\]"),
        ({"chunks": [10**12, 2]}, r"a chunk of data/action takes 8,000\.0 GB of memory"),
        (
            {"shape": [10**9, 2]},
            r"episode_ends stops at step 10, but .* other rows \(data/action 1000000000\)",
        ),
        ({"dtype": "<f5"}, r"data/action/.* is damaged"),
        ({"filters": 3}, r"data/action/.* is damaged"),
    ],
)
def test_metadata_that_lie(tmp_path, plain_zarr, changes, words):
    path = plain_zarr(tmp_path / "x.zarr")
    edited(path / "data/action/.zarray", **changes)
    with pytest.raises(UserError, match=rf"x\.zarr: {words}"):
        read_episodes(path)


def test_a_set_that_declares_more_than_it_holds(tmp_path, plain_zarr):
    path = plain_zarr(tmp_path / "x.zarr", ends=[10**9])
    edited(path / "data/action/.zarray", shape=[10**9, 2])
    with pytest.raises(UserError, match=r"most of it is missing \(249999997 of 250000000 chunks of data/action are"):
        read_episodes(path)
    edited(path / "meta/episode_ends/.zarray", shape=[10**9])
    with pytest.raises(UserError, match=r"meta/episode_ends is not stored as a whole"):
        read_episodes(path)


@pytest.mark.parametrize(("fmt", "name"), [(2, "data/action/.zarray"), (3, "data/action/zarr.json")])
def test_deep_metadata(tmp_path, plain_zarr, fmt, name):
    path = plain_zarr(tmp_path / "x.zarr", fmt=fmt)
    (path / name).write_text('{"attributes":' + "[" * 100_000)
    with pytest.raises(UserError, match=r"data/action/.* is damaged \(nested too deeply"):
        read_episodes(path)


def test_no_episode(tmp_path, plain_zarr):
    with pytest.raises(UserError, match=r"x\.zarr: episode_ends has shape \(0,\); it needs one end"):
        read_episodes(plain_zarr(tmp_path / "x.zarr", ends=[]))


def test_only_what_is_asked_for_must_be_sound(tmp_path, plain_zarr):
    arrays = {
        "action": np.ones((10, 2)),
        "state": np.ones((9, 3)),
        "width": np.ones(10),
        "keypoint": np.ones((10, 9, 2)),
    }
    path = plain_zarr(tmp_path / "x.zarr", arrays=arrays)
    zarr.open_group(path, mode="a").create_array("data/text", shape=(10,), dtype=str)
    (path / "data/broken").mkdir()
    (path / "data/broken/.zarray").write_text("{")
    keys = ["action", "width", "keypoint"]
    with pytest.warns(
        UserWarning, match=r"left out: .*data/text is \[10\] .*; 'state', since data/state has 9 rows and"
    ) as told:
        read = read_episodes(path, keys)
    assert len(told) == 1
    assert {key: values.shape for key, values in read.arrays.items()} == {key: arrays[key].shape for key in keys}
    for key, words in (
        ("state", "9 rows and the episodes have 10"),
        ("text", "numbers"),
        ("broken", "is damaged"),
    ):
        with pytest.raises(UserError, match=words):
            read_episodes(path, ["action", key])
    with pytest.raises(UserError, match=r"data/broken/\.zarray is damaged"):
        read_episodes(path)


def test_the_last_episode_is_cut_short(tmp_path, plain_zarr):
    path = plain_zarr(tmp_path / "x.zarr", ends=[4, 10, 12])
    with pytest.raises(UserError, match=r"goes to step 12, past the data, .* skip_bad_episodes=true \(1 of 3\)\."):
        read_episodes(path)
    with pytest.warns(UserWarning, match="episode 2 is left out: episode_ends goes to step 12"):
        assert read_episodes(path, skip_bad_episodes=True).episode_ends.tolist() == [4, 10]


def test_pipes_do_not_block(tmp_path, plain_zarr):
    """They are no files of the set, so that the chunk is missing, and metadata are not there."""
    path = plain_zarr(tmp_path / "x.zarr", ends=[10])
    (path / "data/action/2.0").unlink()
    os.mkfifo(path / "data/action/2.0")
    for name in (".zattrs", "data/.zattrs", "data/action/.zattrs"):
        (path / name).unlink(missing_ok=True)
        os.mkfifo(path / name)
    with pytest.warns(UserWarning, match="1 of 3 chunks of data/action are not stored"):
        read_episodes(path)
    (path / "data/action/.zarray").unlink()
    os.mkfifo(path / "data/action/.zarray")
    with pytest.raises(UserError, match="holds no array of steps"):
        read_episodes(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"pipe: is no regular file"):
        read_episodes(tmp_path / "pipe")


def test_what_is_still_packed(tmp_path, plain_zarr, zip_folder):
    inner = zip_folder(plain_zarr(tmp_path / "x.zarr"), tmp_path / "demo.zarr.zip")
    with zipfile.ZipFile(tmp_path / "download.zip", "w") as archive:
        archive.write(inner, "sets/demo.zarr.zip")
    with pytest.raises(UserError, match=r"found sets/demo\.zarr\.zip; expected .* unpacked from other archives"):
        read_episodes(tmp_path / "download.zip")


def test_a_zip_that_python_cannot_unpack(tmp_path, plain_zarr, zip_folder):
    path = zip_folder(plain_zarr(tmp_path / "x.zarr", compressors=None), tmp_path / "x.zip")
    content = path.read_bytes()
    for header, place in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):  # the method of compression: Deflate64
        parts = content.split(header)
        content = header.join([parts[0], *(part[: place - 4] + b"\x09\x00" + part[place - 2 :] for part in parts[1:])])
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.zip: .*That compression method is not supported"):
        read_episodes(path)
