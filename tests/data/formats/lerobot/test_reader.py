from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policy_accel.data.formats.base import Feature
from policy_accel.data.formats.lerobot.reader import LeRobotReader
from policy_accel.data.readers import open_episodes
from policy_accel.errors import UserError

from .conftest import VERSIONS, png, replace_first, replaced

KEYS = {
    "state": "observation.state",
    "keypoint": "observation.keypoint",
    "action": "action",
    "reward": "next.reward",
    "done": "next.done",
    "success": "next.success",
    "images.wrist": "observation.images.wrist",
    "images.top": "observation.images.top",
}


def assert_all_episodes(made, keys):
    with LeRobotReader(made.root) as reader:
        for episode in range(len(made.lengths)):
            read = reader.read(episode)
            assert list(read) == keys
            for key in keys:
                wanted = made.episode(KEYS[key], episode)
                assert read[key].dtype == wanted.dtype == reader.features[key].dtype
                np.testing.assert_array_equal(read[key], wanted)


@VERSIONS
def test_low_dimensional_sets_come_back_bit_by_bit_under_short_names(lerobot, version):
    made = lerobot(version)
    assert_all_episodes(made, ["state", "keypoint", "action", "reward", "done", "success"])
    with LeRobotReader(made.root) as reader:
        assert reader.features["state"] == Feature((3,), np.dtype(np.float32))
        assert reader.features["keypoint"] == Feature((2, 2), np.dtype(np.float64))
        assert reader.features["reward"] == Feature((), np.dtype(np.float32))
        assert reader.episode_ends.tolist() == [3, 73, 79]
        assert reader.metadata["fps"] == 10
        assert reader.metadata["lerobot"]["robot_type"] == "panda"
        facts = [reader.episode_metadata(n) for n in range(3)]
        assert facts == [{"task": task, "filters": ["train"]} for task in ("push", "pull", "push")]
        assert (reader.format, reader.layout) == ("lerobot", f"LeRobot {version}")


@VERSIONS
def test_pictures_and_videos_come_back_bit_by_bit(lerobot, version):
    made = lerobot(version, cameras=("wrist", "top"))
    assert_all_episodes(made, list(KEYS))


@VERSIONS
def test_any_piece_of_any_episode_in_any_order(lerobot, version):
    made = lerobot(version, lengths=(40, 200, 90), cameras=("wrist", "top"))
    rng = np.random.default_rng(3)
    with LeRobotReader(made.root) as reader:
        for _ in range(40):
            episode = int(rng.integers(3))
            start, stop = sorted(rng.integers(0, made.lengths[episode] + 1, 2).tolist())
            keys = [["images.top"], ["images.wrist", "action"], list(KEYS)][rng.integers(3)]
            read = reader.read(episode, keys, start, stop)
            for key in keys:
                np.testing.assert_array_equal(read[key], made.episode(KEYS[key], episode)[start:stop])
        assert len(reader.read(0, ["action"], 30, 1000)["action"]) == 10


def test_a_pandas_table_of_tasks_without_a_name_for_its_index(lerobot):
    made = lerobot("v3.0")
    table = pa.table({"task_index": [1, 0], "__index_level_0__": ["pull", "push"]})
    pq.write_table(table, made.root / "meta/tasks.parquet")
    with LeRobotReader(made.root) as reader:
        assert reader.metadata["lerobot"]["tasks"] == ["push", "pull"]


@VERSIONS
def test_derived_columns_that_are_not_what_they_must_be_are_data(lerobot, version):
    made = lerobot(version)
    name = "episode_000001" if version == "v2.1" else "file-000"
    path = next(made.root.glob(f"data/*/{name}.parquet"))
    table = pq.read_table(path)
    times, numbers = table["timestamp"].to_numpy().copy(), table["task_index"].to_numpy().copy()
    times[-1] += 0.004
    numbers[-1] = 0
    for key, values in (("timestamp", times), ("task_index", numbers)):
        table = replaced(table, key, pa.array(values))
    pq.write_table(table, path)
    with LeRobotReader(made.root) as reader:
        assert [key for key in reader.features if key not in KEYS] == ["timestamp", "task_index"]
        read = reader.read(1)
        assert read["timestamp"].dtype == np.float32
        assert read["timestamp"][-1] == times[-1]
        assert read["task_index"][-2:].tolist() == [1, 0]


def test_times_of_another_rounding_are_still_derived(lerobot):
    made = lerobot("v2.1", lengths=(2000,), tasks=("push",))
    path = made.root / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    single = np.arange(2000, dtype=np.float32) * np.float32(0.1)
    exact = (np.arange(2000) / 10).astype(np.float32)
    close = np.where(np.abs(single - exact) <= np.spacing(exact), single, exact)
    assert np.any(close != exact)
    pq.write_table(replaced(table, "timestamp", pa.array(close)), path)
    with LeRobotReader(made.root) as reader:
        assert "timestamp" not in reader.features


def test_text_columns_and_depth_maps_are_named_and_left_out(lerobot):
    made = lerobot()
    made.info["features"] |= {
        "language": {"dtype": "string", "shape": [1], "names": None},
        "observation.depth": {"dtype": "video", "shape": [4, 4, 1], "names": None, "info": {"is_depth_map": True}},
    }
    made.save_info()
    with LeRobotReader(made.root) as reader:
        assert reader.metadata["lerobot"]["left_out"] == ["language", "observation.depth"]
        assert not {"language", "depth"} & set(reader.features)
        assert reader.left_out["language"].startswith("info.json gives its dtype as string and its shape as [1], and")
        with pytest.raises(UserError, match="'depth' cannot be used: it is a depth map"):
            reader.ask_for(["depth"])


def test_channels_first_in_info_are_channels_last_in_memory(lerobot):
    made = lerobot(cameras=("wrist",))
    made.info["features"]["observation.images.wrist"] |= {"shape": [3, 5, 4], "names": ["channel", "height", "width"]}
    made.save_info()
    assert_all_episodes(made, list(KEYS)[:-1])


def test_grey_pictures_where_colour_is_expected(lerobot):
    made = lerobot(cameras=("wrist",))
    grey = np.random.default_rng(0).integers(0, 256, (5, 4)).astype(np.uint8)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    replace_first(made, "observation.images.wrist", pa.array([{"bytes": png(grey), "path": None}] * 3, kind))
    with LeRobotReader(made.root) as reader:
        np.testing.assert_array_equal(reader.read(0)["images.wrist"], np.broadcast_to(grey[..., None], (3, 5, 4, 3)))


def test_a_set_from_which_episodes_were_removed(lerobot):
    """The others keep their numbers; filters count episodes as they lie, or LeRobot's numbers where those are meant."""
    made = lerobot()
    path = made.root / "meta/episodes.jsonl"
    path.write_text(
        "".join(line for line in path.read_text().splitlines(keepends=True) if '"episode_index": 1' not in line)
    )
    for splits, wanted in (("0:2", {0: 0, 1: 2}), ("0:1", {0: 0}), ("2:3", {0: 2})):
        made.info |= {"splits": {"train": splits, "odd": "some"}}
        made.save_info()
        with open_episodes(made.root, ["action"], filter_key="train") as reader:
            for episode, number in wanted.items():
                np.testing.assert_array_equal(reader.read(episode)["action"], made.episode("action", number))
            assert len(reader.episode_ends) == len(wanted)
            assert "total_episodes is 3 in info.json; the table of episodes has 2." in reader.remarks
    sorted(made.root.glob("data/*/*.parquet"))[-1].unlink()
    with LeRobotReader(made.root) as reader:
        assert reader.faults[1].startswith(
            "episode 1 (episode_index 2): data/chunk-001/episode_000002.parquet: does not"
        )


@VERSIONS
def test_the_type_of_the_table_counts(lerobot, version):
    made = lerobot(version)
    made.info["features"]["action"]["dtype"] = "int8"
    made.save_info()
    with LeRobotReader(made.root) as reader:
        assert reader.remarks == ["action is float32 in the tables and int8 in info.json; read as the first."]
        np.testing.assert_array_equal(reader.read(0)["action"], made.episode("action", 0))


def test_a_number_in_a_list_and_a_list_without_its_brackets(lerobot):
    made = lerobot()
    made.info["features"]["observation.grip"] = {"dtype": "float32", "shape": [1], "names": ["grip"]}
    made.save_info()
    for place, path in enumerate(sorted(made.root.glob("data/*/*.parquet"))):
        table = pq.read_table(path)
        values = pa.array(np.arange(len(table), dtype=np.float32))
        column = values if place == 0 else pa.FixedSizeListArray.from_arrays(values, 1)
        pq.write_table(table.append_column("observation.grip", column), path)
    with LeRobotReader(made.root) as reader:
        for episode in range(3):
            np.testing.assert_array_equal(reader.read(episode)["grip"][:, 0], np.arange(made.lengths[episode]))


@VERSIONS
def test_without_a_file_of_tasks(lerobot, version):
    made = lerobot(version)
    next(made.root.glob("meta/tasks.*")).unlink()
    with LeRobotReader(made.root) as reader:
        assert reader.episode_metadata(1) == {"task": "pull", "filters": ["train"]}


def test_older_sets_differ_in_their_statistics_alone(lerobot):
    made = lerobot(cameras=("wrist", "top"))
    made.info["codebase_version"] = "v2.0"
    made.save_info()
    assert_all_episodes(made, list(KEYS))


def test_a_camera_whose_name_leads_elsewhere_is_left_out(lerobot):
    made = lerobot(cameras=("top",))
    made.info["features"]["../../../elsewhere"] = made.info["features"]["observation.images.top"]
    made.save_info()
    with open_episodes(made.root) as reader:
        assert list(reader.left_out) == ["../../../elsewhere"]
