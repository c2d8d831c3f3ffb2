"""Replay buffers read and written a piece at a time, and facts in them that Diffusion Policy does not mind."""

import numpy as np
import pytest
import zarr
from zarr.storage import ZipStore

from policy_accel.data import Episodes, inspect, read_episodes
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.readers import chosen_episodes, open_episodes, write_episodes
from policy_accel.errors import UserError

STORES = [(fmt, suffix) for fmt in (2, 3) for suffix in (".zarr", ".zarr.zip")]
FACTS = ({"filters": ["train"], "model_file": "é" * 3_000_000}, {}, {"task": "push"})


def made():
    rng = np.random.default_rng(0)
    arrays = {
        "action": rng.normal(size=(700, 2)),
        "action_abs": rng.normal(size=(700, 2)).astype(np.float32),
        "img": rng.integers(0, 256, size=(700, 48, 48, 3), dtype=np.uint8),  # chunks of 289 steps
    }
    return Episodes(arrays, [100, 101, 700], "made", {"env_args": {"env_name": "Lift"}, "fps": 10}, FACTS)


@pytest.mark.parametrize(("fmt", "suffix"), STORES)
def test_pieces(tmp_path, fmt, suffix):
    episodes = made()
    write_episodes(tmp_path / f"x{suffix}", MemoryReader(episodes), "zarr", zarr_format=fmt)
    with open_episodes(tmp_path / f"x{suffix}") as reader:
        assert reader.format == "zarr"
        assert reader.metadata == episodes.metadata
        assert tuple(reader.episode_metadata(i) for i in range(3)) == FACTS
        for episode, start, stop in ((2, 150, 200), (0, 0, None), (2, 598, 2000), (1, 0, 1), (2, 0, 599)):
            read = reader.read(episode, ["img", "action_abs"], start, stop)
            first, end = [0, 100, 101][episode], [100, 101, 700][episode]
            rows = slice(first + start, end if stop is None else min(end, first + stop))
            for key in ("img", "action_abs"):
                np.testing.assert_array_equal(read[key], episodes.arrays[key][rows])


@pytest.mark.parametrize(("fmt", "suffix"), STORES)
def test_what_diffusion_policy_asks_for(tmp_path, fmt, suffix):
    """ReplayBuffer.__init__ compares the length of everything below data/ with the last end, and loads all of meta/."""
    path = tmp_path / f"x{suffix}"
    write_episodes(path, MemoryReader(made()), "zarr", zarr_format=fmt)
    root = zarr.open_group(ZipStore(path, mode="r") if suffix.endswith(".zip") else path, mode="r")
    assert sorted(root.group_keys()) == ["data", "meta"]
    meta = {name: array[:] for name, array in root["meta"].arrays()}
    assert meta["episode_ends"].tolist() == [100, 101, 700]
    assert all(array.shape[0] == 700 for _, array in root["data"].arrays())
    assert root["data/img"].chunks == (289, 48, 48, 3)


def test_without_facts_there_is_nothing_of_ours(tmp_path):
    write_episodes(tmp_path / "x.zarr", MemoryReader(Episodes({"action": np.ones((5, 2))}, [5])), "zarr")
    root = zarr.open_group(tmp_path / "x.zarr", mode="r")
    assert list(root["meta"].array_keys()) == ["episode_ends"]
    assert dict(root.attrs) == {}


def test_only_some_keys(tmp_path):
    write_episodes(tmp_path / "x.zarr", MemoryReader(made()), "zarr", keys=["action"])
    assert list(read_episodes(tmp_path / "x.zarr").arrays) == ["action"]
    with pytest.raises(UserError, match=r"made: has no key 'actoin'; did you mean 'action'"):
        write_episodes(tmp_path / "y.zarr", MemoryReader(made()), "zarr", keys=["actoin"])


def test_filter_of_a_replay_buffer(tmp_path):
    write_episodes(tmp_path / "x.zarr", MemoryReader(made()), "zarr")
    read = read_episodes(tmp_path / "x.zarr", ["action"], filter_key="train")
    np.testing.assert_array_equal(read.arrays["action"], made().arrays["action"][:100])
    assert read.episode_metadata == FACTS[:1]


def test_real_file(shared_data):
    path = shared_data / "pusht_v7_u8.zarr.zip"
    whole = read_episodes(path, ["state", "img"])
    with open_episodes(path) as reader:
        assert (len(reader.episode_ends), reader.metadata, reader.episode_metadata(7)) == (206, {}, {})
        rows = slice(int(whole.starts[100]) + 10, int(whole.starts[100]) + 30)
        for key, values in reader.read(100, ["state", "img"], 10, 30).items():
            np.testing.assert_array_equal(values, whole.arrays[key][rows])


@pytest.mark.parametrize("suffix", [".zarr", ".zarr.zip"])
def test_missing_chunks_of_keys_that_begin_alike(tmp_path, plain_zarr, zip_folder, suffix):
    arrays = {"action": np.ones((10, 2)), "action_abs": np.ones((10, 2))}
    path = plain_zarr(tmp_path / "x.zarr", arrays=arrays)
    (path / "data/action_abs/1.0").unlink()
    if suffix == ".zarr.zip":
        path = zip_folder(path, tmp_path / "x.zarr.zip")
    with open_episodes(path) as reader:
        (remark,) = reader.remarks
    assert remark.startswith("1 of 3 chunks of data/action_abs are not stored")


def test_some_episodes_of_a_set(tmp_path, plain_zarr):
    path = plain_zarr(tmp_path / "x.zarr")
    whole = read_episodes(path)
    with open_episodes(path, episodes=[1, 0]) as reader:
        np.testing.assert_array_equal(reader.read(0)["action"], whole.arrays["action"][whole.episode_ends[0] :][:6])
        assert len(reader.episode_ends) == 2
    with pytest.raises(UserError, match=r"x\.zarr: episodes names 2; there are 2, 0 to 1, and"):
        open_episodes(path, episodes=[2])


def test_an_episode_with_a_fault(tmp_path, plain_zarr):
    with open_episodes(plain_zarr(tmp_path / "x.zarr")) as reader:
        reader.faults[0] = "episode 0 has no picture of its last step; record it again."
        with pytest.raises(UserError, match=r"no picture of its last step"):
            reader.read(0)
        with pytest.raises(UserError, match=r"record it again; or leave such episodes out .* \(1 of 2\)\."):
            chosen_episodes(reader, None)
        view = chosen_episodes(reader, None, skip_bad=True)
        np.testing.assert_array_equal(view.read(0)["action"], reader.read(1)["action"])
        assert view.remarks == ["episode 0 is left out: it has no picture of its last step; record it again."]
        with pytest.raises(UserError, match=r"none is left \(1 of 1\)"):
            chosen_episodes(reader, [0], skip_bad=True)


def test_damaged_chunk_is_told_when_it_is_read(tmp_path, plain_zarr):
    path = plain_zarr(tmp_path / "x.zarr")
    (path / "data/action/1.0").write_bytes(b"no")
    with open_episodes(path) as reader:
        assert reader.read(0, stop=4)["action"].shape == (4, 2)
        with pytest.raises(UserError, match=r"x\.zarr: a chunk of data/action at steps 4\.\.7"):
            reader.read(1)


def test_facts_of_other_episodes(tmp_path):
    path = tmp_path / "x.zarr"
    write_episodes(path, MemoryReader(made()), "zarr")
    root = zarr.open_group(path, mode="a")
    root.create_array("meta/episode_facts_ends", data=np.array([5, 9]), overwrite=True)
    for read in (read_episodes, inspect):
        with pytest.raises(UserError, match=r"x\.zarr: meta/episode_facts_ends is not that of 3 episodes"):
            read(path)


def test_report(tmp_path):
    write_episodes(tmp_path / "x.zarr", MemoryReader(made()), "zarr")
    text = inspect(tmp_path / "x.zarr").text
    assert '  env_args: {"env_name": "Lift"}' in text
    assert "  fps: 10" in text
    assert "  filters: train (1) episodes" in text
