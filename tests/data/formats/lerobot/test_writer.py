from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policy_accel.data.episodes import Episodes
from policy_accel.data.formats.base import EpisodeView, MemoryReader, pieces
from policy_accel.data.formats.lerobot import writer as written_files
from policy_accel.data.formats.lerobot.reader import LeRobotReader
from policy_accel.data.formats.lerobot.writer import write_lerobot
from policy_accel.data.readers import gather
from policy_accel.errors import UserError

from .conftest import VERSIONS

IMAGES = pytest.mark.parametrize("images", ["lossless", "png"])


@pytest.fixture
def episodes():
    def episodes(lengths=(8, 12, 1), *, pictures=True, extra=None, **changes):
        rng = np.random.default_rng(0)
        steps = sum(lengths)
        arrays = {
            "object": rng.normal(size=(steps, 3)),
            "action": rng.normal(size=(steps, 2)).astype(np.float32),
            "action_abs": rng.normal(size=(steps, 7)).astype(np.float16),
            "reward": rng.normal(size=steps).astype(np.float32),
            "done": rng.random(steps) > 0.5,
            "one": rng.normal(size=(steps, 1)),
            "count": rng.integers(-9, 9, steps),
            "small": rng.integers(0, 255, (steps, 2, 2, 2)).astype(np.uint8),
            "keypoint": rng.normal(size=(steps, 9, 2)).astype(np.float32),
            "next_obs.object": rng.normal(size=(steps, 3)),
            "sim_state": rng.normal(size=(steps, 5)),
            "arm/joint": rng.normal(size=(steps, 2)),
            "arm.joint": rng.normal(size=(steps, 2)),
            "index": rng.integers(0, 5, steps),
        }
        if pictures:
            arrays["agentview_image"] = rng.integers(0, 256, (steps, 17, 21, 3)).astype(np.uint8)
            arrays["grey"] = rng.integers(0, 256, (steps, 6, 8, 1)).astype(np.uint8)
            arrays["alpha"] = rng.integers(0, 256, (steps, 6, 8, 4)).astype(np.uint8)
        facts = {
            "metadata": {"env_args": {"env_name": "Lift", "env_kwargs": {"control_freq": 20}}},
            "episode_metadata": (*[{"name": f"demo_{n}", "filters": ["train"]} for n in range(len(lengths) - 1)], {}),
        }
        return Episodes(arrays | (extra or {}), np.cumsum(lengths), "memory", **(facts | changes))

    return episodes


def read(root):
    with LeRobotReader(root) as reader:
        return gather(reader)


def assert_round_trip(root, wanted, **options):
    """What is written there is read as it was."""
    write_lerobot(root, MemoryReader(wanted), **options)
    found = read(root)
    assert list(found.arrays) == list(wanted.arrays)
    for key, values in wanted.arrays.items():
        assert found.arrays[key].dtype == values.dtype, key
        np.testing.assert_array_equal(found.arrays[key], values, err_msg=key)
    np.testing.assert_array_equal(found.episode_ends, wanted.episode_ends)
    assert found.metadata == wanted.metadata
    assert found.episode_metadata == wanted.episode_metadata


@IMAGES
def test_a_round_trip_loses_nothing(episodes, tmp_path, images):
    assert_round_trip(tmp_path / "set", episodes(), images=images)


@VERSIONS
def test_a_set_of_lerobot_goes_through_memory_and_back(lerobot, tmp_path, version):
    made = lerobot(version, cameras=("wrist", "top"))
    wanted = read(made.root)
    assert_round_trip(tmp_path / "other", wanted)
    info = json.loads((tmp_path / "other/meta/info.json").read_text())
    kinds = {name: facts["dtype"] for name, facts in info["features"].items()}
    assert kinds == {name: facts["dtype"] for name, facts in made.info["features"].items()}
    assert (info["robot_type"], info["fps"], info["splits"]) == ("panda", 10, {"train": "0:3"})


def test_times_and_tasks_of_single_steps_keep_their_columns(episodes, tmp_path):
    rng = np.random.default_rng(1)
    extra = {"timestamp": rng.random(21).astype(np.float32), "task_index": rng.integers(0, 3, 21)}
    wanted = episodes(
        pictures=False,
        extra=extra,
        metadata={"lerobot": {"tasks": ["a", "b", "c"]}},
        episode_metadata=({"tasks": ["a", "b"]}, {"tasks": ["c"]}, {}),
    )
    assert_round_trip(tmp_path / "set", wanted)
    table = pq.read_table(sorted(tmp_path.glob("set/data/*/*.parquet"))[0])
    np.testing.assert_array_equal(table["timestamp"].to_numpy()[:8], extra["timestamp"][:8])
    np.testing.assert_array_equal(table["task_index"].to_numpy()[:8], extra["task_index"][:8])


# The specification, field by field.


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_info_and_tables_of_v30(episodes, tmp_path):
    root = tmp_path / "set"
    wanted = episodes()
    write_lerobot(root, MemoryReader(wanted), fps=15)
    info = json.loads((root / "meta/info.json").read_text())
    assert {key: info[key] for key in info if key not in ("features", "policy_accel")} == {
        "codebase_version": "v3.0",
        "fps": 15,
        "total_episodes": 3,
        "total_frames": 21,
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "robot_type": None,
        "splits": {"train": "0:3"},
    }
    assert files(root) == [
        "data/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/info.json",
        "meta/policy_accel_episodes.jsonl",
        "meta/stats.json",
        "meta/tasks.parquet",
        "videos/observation.agentview_image/chunk-000/file-000.mp4",
    ]
    rows = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    video = "videos/observation.agentview_image/"
    assert [{key: value for key, value in row.items() if not key.startswith("stats/")} for row in rows] == [
        {
            "episode_index": n,
            "tasks": ["Lift"],
            "length": stop - start,
            "data/chunk_index": 0,
            "data/file_index": 0,
            "dataset_from_index": start,
            "dataset_to_index": stop,
            f"{video}chunk_index": 0,
            f"{video}file_index": 0,
            f"{video}from_timestamp": start / 15,
            f"{video}to_timestamp": stop / 15,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        for n, (start, stop) in enumerate(((0, 8), (8, 20), (20, 21)))
    ]
    features = info["features"]
    assert info["policy_accel"]["metadata"] == wanted.metadata | {"fps": 15}
    assert features["action"] == {"dtype": "float32", "shape": [2], "names": None}
    assert features["next.reward"] == {"dtype": "float32", "shape": [1], "names": None}
    assert features["observation.agentview_image"] == {
        "dtype": "video",
        "shape": [17, 21, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": 17,
            "video.width": 21,
            "video.codec": "h264",
            "video.pix_fmt": "gbrp",
            "is_depth_map": False,
            "video.fps": 15,
            "video.channels": 3,
            "has_audio": False,
        },
    }
    assert {facts["dtype"] for name, facts in features.items() if name.endswith(("grey", "alpha"))} == {"image"}
    assert not [name for name in features if "/" in name]
    assert list(features)[-5:] == ["timestamp", "frame_index", "episode_index", "index", "task_index"]
    table = pq.read_table(root / "data/chunk-000/file-000.parquet")
    assert table.schema.names == [name for name in features if name != "observation.agentview_image"]
    types = {field.name: field.type for field in table.schema}
    assert types["action"] == pa.list_(pa.float32(), 2)
    assert types["next.done"] == pa.bool_()
    assert types["next.reward"] == pa.float32()
    assert types["observation.keypoint"].value_type.value_type == pa.float32()
    assert types["observation.grey"] == pa.struct({"bytes": pa.binary(), "path": pa.string()})
    np.testing.assert_array_equal(table["timestamp"].to_numpy()[8:20], (np.arange(12) / 15).astype(np.float32))
    for name, values in {"frame_index": range(12), "episode_index": [1] * 12, "index": range(8, 20)}.items():
        assert table[name].type == pa.int64()
        assert table[name].to_pylist()[8:20] == list(values)

    tasks = pq.read_table(root / "meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0], "task": ["Lift"]}
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_files_of_v30_end_at_their_limit_and_chunks_at_theirs(episodes, tmp_path, monkeypatch):
    monkeypatch.setattr(written_files, "DATA_BYTES", 30_000)
    monkeypatch.setattr(written_files, "VIDEO_BYTES", 20_000)
    monkeypatch.setattr(written_files, "CHUNKS_SIZE", 2)
    wanted = episodes((10,) * 9, episode_metadata=())
    assert_round_trip(tmp_path / "set", wanted)
    for folder in ("data", "videos/observation.agentview_image"):
        names = files(tmp_path / "set" / folder)
        assert len(names) >= 3
        assert [Path(name).with_suffix("").as_posix() for name in names] == [
            f"chunk-{n // 2:03d}/file-{n % 2:03d}" for n in range(len(names))
        ]


def test_pieces_of_long_episodes(episodes, tmp_path, monkeypatch):
    monkeypatch.setattr(written_files, "pieces", partial(pieces, piece_bytes=10_000))
    wanted = episodes((50, 31), episode_metadata=())
    done = []
    assert_round_trip(tmp_path / "set", wanted, progress=lambda *counts: done.append(counts))
    assert len(done) > 10
    assert done == sorted(done)
    assert done[-1] == (81, 81)
    monkeypatch.undo()
    write_lerobot(tmp_path / "whole", MemoryReader(wanted))
    one, two = (json.loads((tmp_path / name / "meta/stats.json").read_text()) for name in ("set", "whole"))
    for name in one:
        for level in one[name]:
            np.testing.assert_allclose(one[name][level], two[name][level], rtol=1e-9, err_msg=f"{name} {level}")


@pytest.mark.parametrize(
    ("metadata", "fps"),
    [
        ({}, 10),
        ({"fps": 7.5}, 7.5),
        ({"fps": 30.0, "env_args": {"env_kwargs": {"control_freq": 20}}}, 30),
        ({"env_args": {"env_kwargs": {"control_freq": 20}}}, 20),
        ({"env_args": "broken"}, 10),
    ],
)
def test_the_rate_comes_from_the_metadata(tmp_path, metadata, fps):
    images = np.zeros((3, 8, 8, 3), np.uint8)
    wanted = Episodes({"action": np.zeros((3, 1)), "top": images}, np.array([3]), "memory", metadata)
    assert_round_trip(tmp_path / "set", wanted)
    assert json.loads((tmp_path / "set/meta/info.json").read_text())["fps"] == fps


def test_tasks_are_numbered_as_they_appear(episodes, tmp_path):
    tasks = ("push", "pull", "push")
    wanted = episodes(episode_metadata=tuple({"task": task} for task in tasks))
    assert_round_trip(tmp_path / "set", wanted)
    table = pq.read_table(tmp_path / "set/meta/tasks.parquet")
    assert table.to_pydict() == {"task_index": [0, 1], "task": ["push", "pull"]}
    table = pq.read_table(tmp_path / "set/data/chunk-000/file-000.parquet")
    assert table["task_index"].to_pylist() == [0] * 8 + [1] * 12 + [0]


def test_splits_that_no_longer_fit_are_replaced(lerobot, tmp_path):
    made = lerobot()
    made.info["splits"] = {"train": "0:2", "test": "2:3"}
    made.save_info()
    with LeRobotReader(made.root) as reader:
        write_lerobot(tmp_path / "all", reader)
        write_lerobot(tmp_path / "some", EpisodeView(reader, episodes=[0, 2]))
    for name, splits in (("all", made.info["splits"]), ("some", {"train": "0:2"})):
        assert json.loads((tmp_path / name / "meta/info.json").read_text())["splits"] == splits


def test_facts_about_episodes_that_another_program_has_changed_are_not_believed(episodes, tmp_path):
    root = tmp_path / "set"
    write_lerobot(root, MemoryReader(episodes()))
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path)[:2], path)
    found = read(root)
    assert found.episode_metadata == ({"task": "Lift", "filters": ["train"]},) * 2
    assert found.metadata["fps"] == 20
    assert list(found.arrays) == list(episodes().arrays)


def test_facts_about_episodes_that_are_cut_off(episodes, tmp_path):
    write_lerobot(tmp_path / "set", MemoryReader(episodes()))
    path = tmp_path / "set/meta/policy_accel_episodes.jsonl"
    text = path.read_text()
    for left, sentence in ((text[:-2], "line 3 is damaged"), ("", "line 1 is damaged")):
        path.write_text(left)
        with pytest.raises(UserError, match=sentence):
            read(tmp_path / "set")


# What cannot be written.


def assert_refused(tmp_path, sentence, wanted, **options):
    with pytest.raises(UserError, match=sentence):
        write_lerobot(tmp_path / "set", MemoryReader(wanted), **options)
    assert not list(tmp_path.glob("set*"))
    assert not list(tmp_path.glob(".set*"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"images": "jpeg"}, "images 'jpeg' is unknown"),
        ({"fps": 0}, "fps=0 must be a positive number"),
        ({"fps": float("nan")}, "fps=nan must be a positive number"),
        ({"images": "h264"}, "observation.agentview_image: frames of 17x21 pixels cannot be h264"),
    ],
)
def test_options_that_do_not_go(episodes, tmp_path, options, sentence):
    assert_refused(tmp_path, sentence, episodes(), **options)


def test_data_that_does_not_go(tmp_path):
    ends = np.array([2])
    deep = Episodes({"deep": np.zeros((2, 1, 1, 1, 1, 1, 1))}, ends, "memory")
    assert_refused(tmp_path, "memory: data/deep has 6 axes a step", deep)
    lost = Episodes({"task_index": np.array([0, 4])}, ends, "memory", {"lerobot": {"tasks": ["a"]}})
    assert_refused(tmp_path, "task_index 4 in episode 0 has no task in words", lost)


def test_nothing_is_overwritten(episodes, tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(UserError, match="exists already"):
        write_lerobot(tmp_path / "set", MemoryReader(episodes()))
    assert not list((tmp_path / "set").iterdir())
