from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policy_accel.data.formats.base import Feature
from policy_accel.data.formats.lerobot.layout import is_lerobot
from policy_accel.data.formats.lerobot.reader import LeRobotReader
from policy_accel.errors import UserError

from .conftest import png

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
VERSIONS = pytest.mark.parametrize("version", ["v2.1", "v3.0"])


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
        assert [reader.episode_metadata(n) for n in range(3)] == [{"task": "push"}, {"task": "pull"}, {"task": "push"}]
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
        table = table.set_column(table.schema.get_field_index(key), key, pa.array(values))
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
    pq.write_table(table.set_column(table.schema.get_field_index("timestamp"), "timestamp", pa.array(close)), path)
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


def test_channels_first_in_info_are_channels_last_in_memory(lerobot):
    made = lerobot(cameras=("wrist",))
    made.info["features"]["observation.images.wrist"] |= {"shape": [3, 5, 4], "names": ["channel", "height", "width"]}
    made.save_info()
    assert_all_episodes(made, list(KEYS)[:-1])


def test_other_folders_are_no_lerobot_set(tmp_path):
    assert not is_lerobot(tmp_path)
    assert not is_lerobot(tmp_path / "missing")
    with pytest.raises(UserError, match=r"meta/info\.json: does not exist"):
        LeRobotReader(tmp_path)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text('{"name": "something else"}')
    assert not is_lerobot(tmp_path)
    with pytest.raises(UserError, match=r"meta/info\.json: names no codebase_version"):
        LeRobotReader(tmp_path)


@pytest.mark.parametrize(
    ("version", "file", "remedy"),
    [
        ("v2.0", "meta/info.json", "lerobot.datasets.v21.convert_dataset_v20_to_v21"),
        ("v1.6", "meta_data/info.json", "lerobot.datasets.v2.convert_dataset_v1_to_v2"),
        ("v4.0", "meta/info.json", "newer policy-accel"),
    ],
)
def test_other_versions_name_the_conversion(tmp_path, version, file, remedy):
    path = tmp_path / file
    path.parent.mkdir()
    path.write_text(json.dumps({"codebase_version": version, "fps": 10}))
    with pytest.raises(UserError, match=rf"codebase_version is {version}, and v2.1 and v3.0 can be read.*{remedy}"):
        LeRobotReader(tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_column(made, name, pattern="data/*/*.parquet"):
    path = sorted(made.root.glob(pattern))[0]
    pq.write_table(pq.read_table(path).drop_columns([name]), path)


def shorten(made, pattern="data/*/*.parquet"):
    path = sorted(made.root.glob(pattern))[0]
    pq.write_table(pq.read_table(path)[:-1], path)


def read_all(root):
    with LeRobotReader(root) as reader:
        for episode in range(3):
            reader.read(episode)


FAULTS = {
    "a column is missing": (lambda m: drop_column(m, "action"), "has no column 'action', which info.json names"),
    "a data file is missing": (lambda m: sorted(m.root.glob("data/*/*"))[0].unlink(), r"\.parquet: does not exist"),
    "a data file is cut off": (lambda m: cut(sorted(m.root.glob("data/*/*"))[0]), r"\.parquet: is cut off or damaged"),
    "steps are missing": (shorten, r"holds \d+ steps of episode \d, and the table of episodes says"),
    "a video is missing": (lambda m: sorted(m.root.glob("videos/**/*.mp4"))[0].unlink(), r"\.mp4: does not exist"),
    "a video is cut off": (lambda m: cut(sorted(m.root.glob("videos/**/*.mp4"))[0]), r"\.mp4: is cut off or no video"),
    "info.json is cut off": (lambda m: cut(m.root / "meta/info.json"), "info.json: is not valid JSON"),
}


@VERSIONS
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_one_sentence(lerobot, version, fault):
    made = lerobot(version, cameras=("top",))
    damage, sentence = FAULTS[fault]
    damage(made)
    with pytest.raises(UserError, match=sentence):
        read_all(made.root)


@VERSIONS
@pytest.mark.parametrize("kept", [-1, 1])
def test_a_video_of_another_length_than_the_table_is_refused(lerobot, version, kept, tmp_path):
    other = lerobot(version, lengths=(3 + kept, 70, 6), cameras=("top",), root=tmp_path / "other")
    made = lerobot(version, cameras=("top",))
    path = sorted(made.root.glob("videos/**/*.mp4"))[0]
    path.write_bytes((other.root / path.relative_to(made.root)).read_bytes())
    with (
        LeRobotReader(made.root) as reader,
        pytest.raises(UserError, match=rf"mp4: holds {3 + kept} frames, and the tables of the data set count 3 steps"),
    ):
        reader.read(0, ["images.top"])


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("fps", None, "has no field 'fps'"),
        ("fps", 0, "fps is 0"),
        ("data_path", "data/{nothing}.parquet", "the file of episode 0 cannot be told.*nothing"),
        ("features", {"action": {"dtype": "float32"}}, "feature 'action' lacks dtype or shape"),
        ("features", {"action": {"dtype": "complex", "shape": [2]}}, "dtype 'complex', which is unknown"),
        ("features", {"action": {"dtype": "float32", "shape": [5]}}, r"'action' has 6 numbers in 3 rows.*shape \[5\]"),
    ],
)
def test_wrong_fields_of_info(lerobot, field, value, sentence):
    made = lerobot()
    made.info[field] = value
    if value is None:
        del made.info[field]
    made.save_info()
    with pytest.raises(UserError, match=sentence), LeRobotReader(made.root) as reader:
        reader.read(0)


def replaced(made, name, values):
    path = sorted(made.root.glob("data/*/*.parquet"))[0]
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, values), path)


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ({"bytes": None, "path": "frame_000000.png"}, "has no picture in row 0, only a path"),
        ({"bytes": b"no picture", "path": None}, "a picture that cannot be decoded"),
        (
            {"bytes": png(np.zeros((3, 3, 3), np.uint8)), "path": None},
            "a picture of 3x3 pixels, and info.json says 5x4",
        ),
    ],
)
def test_wrong_pictures(lerobot, cell, sentence):
    made = lerobot(cameras=("wrist",))
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    replaced(made, "observation.images.wrist", pa.array([cell] * 3, kind))
    with LeRobotReader(made.root) as reader:
        assert reader.read(0, ["action"])["action"].shape == (3, 2)
        with pytest.raises(UserError, match=f"column 'observation.images.wrist' has {sentence.removeprefix('has ')}"):
            reader.read(0)


def test_grey_pictures_where_colour_is_expected(lerobot):
    made = lerobot(cameras=("wrist",))
    grey = np.random.default_rng(0).integers(0, 256, (5, 4)).astype(np.uint8)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    replaced(made, "observation.images.wrist", pa.array([{"bytes": png(grey), "path": None}] * 3, kind))
    with LeRobotReader(made.root) as reader:
        np.testing.assert_array_equal(reader.read(0)["images.wrist"], np.broadcast_to(grey[..., None], (3, 5, 4, 3)))


def test_values_that_are_missing(lerobot):
    made = lerobot()
    replaced(made, "next.reward", pa.array([1.0, None, 2.0], pa.float32()))
    with LeRobotReader(made.root) as reader, pytest.raises(UserError, match=r"column 'next\.reward' has empty values"):
        reader.read(0)


def test_frames_of_another_size(lerobot):
    made = lerobot(cameras=("top",))
    made.info["features"]["observation.images.top"]["shape"] = [16, 32, 3]
    made.save_info()
    with LeRobotReader(made.root) as reader, pytest.raises(UserError, match=r"frames of 16x24 pixels.*says 16x32"):
        reader.read(0)


def test_wrong_lines_of_episodes(lerobot):
    path = lerobot().root / "meta/episodes.jsonl"
    good = path.read_text()
    for text, sentence in (
        (good + "{broken\n", "line 4 is not a JSON object"),
        (good + good, "episode 0 is twice"),
        (good.replace('"length": 70', '"length": 0'), "episode_index 1 and length 0"),
        ("", "holds no episode"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=sentence):
            LeRobotReader(path.parents[1])


def test_steps_of_an_episode_that_lies_elsewhere(lerobot):
    made = lerobot("v3.0")
    path = made.root / "data/chunk-000/file-001.parquet"
    table = pq.read_table(path)
    column = table.schema.get_field_index("episode_index")
    for values, sentence in ((np.full(6, 7), "holds steps of episode 7"), ([2, 2, 0, 0, 2, 2], "steps of episode 0")):
        pq.write_table(table.set_column(column, "episode_index", pa.array(values)), path)
        with pytest.raises(UserError, match=sentence):
            LeRobotReader(made.root)


def test_unknown_key(lerobot):
    with LeRobotReader(lerobot().root) as reader, pytest.raises(UserError, match="no key 'stat'; did you mean 'state'"):
        reader.read(0, ["stat"])


@pytest.mark.parametrize(("package", "keys"), [("pyarrow", "None"), ("av", "['images.top']")])
def test_a_package_that_is_missing_is_named(lerobot, package, keys):
    root = lerobot(cameras=("top",)).root
    program = (
        f"import sys; sys.modules['{package}'] = None\n"
        "from policy_accel.data.readers import open_episodes\n"
        f"reader = open_episodes({str(root)!r})\n"
        "print(reader.read(0, ['action'])['action'].shape)\n"
        f"reader.read(0, {keys})"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"the package {package}, which is not installed; pip install '.[lerobot]' in our checkout." in run.stderr
    assert run.stdout == ("(3, 2)\n" if package == "av" else "")  # numbers need no video library
