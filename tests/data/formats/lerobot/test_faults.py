"""What is wrong with a LeRobot set is said in a sentence; one bad episode spoils no other."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policy_accel.data.formats.lerobot.layout import is_lerobot
from policy_accel.data.formats.lerobot.reader import LeRobotReader
from policy_accel.data.readers import open_episodes, read_episodes
from policy_accel.errors import UserError
from policy_accel.extras import to_install

from .conftest import VERSIONS, change_first, first_table, png, replace_first, replaced


def test_other_folders_are_no_lerobot_set(tmp_path):
    assert not is_lerobot(tmp_path)
    assert not is_lerobot(tmp_path / "missing")
    with pytest.raises(UserError, match=r"meta/info\.json: does not exist"):
        LeRobotReader(tmp_path)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text('{"name": "something else"}')
    assert not is_lerobot(tmp_path)
    with pytest.raises(UserError, match=r"meta/info\.json: codebase_version is missing.*check the path"):
        LeRobotReader(tmp_path)


@pytest.mark.parametrize(
    ("version", "file", "remedy"),
    [
        ("v1.6", "meta_data/info.json", "lerobot.datasets.v2.convert_dataset_v1_to_v2"),
        ("v4.0", "meta/info.json", "newer policy-accel"),
    ],
)
def test_other_versions_name_the_conversion(tmp_path, version, file, remedy):
    path = tmp_path / file
    path.parent.mkdir()
    path.write_text(json.dumps({"codebase_version": version, "fps": 10}))
    with pytest.raises(
        UserError, match=rf"codebase_version is {version}, and v2.0, v2.1 and v3.0 can be read.*{remedy}"
    ):
        LeRobotReader(tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def read_all(root):
    with LeRobotReader(root) as reader:
        for episode in range(3):
            reader.read(episode)


FAULTS = {
    "a column is missing": (
        lambda m: change_first(m, lambda table: table.drop_columns(["action"])),
        "has no column 'action'",
    ),
    "a data file is missing": (lambda m: first_table(m).unlink(), r"\.parquet: does not exist"),
    "a data file is cut off": (lambda m: cut(first_table(m)), r"\.parquet: the table is damaged"),
    "steps are missing": (
        lambda m: change_first(m, lambda table: table[:-1]),
        r"holds \d+ steps of episode \d, and the table of episodes says",
    ),
    "a video is missing": (lambda m: sorted(m.root.glob("videos/**/*.mp4"))[0].unlink(), r"\.mp4: does not exist"),
    "a video is cut off": (lambda m: cut(sorted(m.root.glob("videos/**/*.mp4"))[0]), r"\.mp4: the video is damaged"),
    "info.json is cut off": (lambda m: cut(m.root / "meta/info.json"), "info.json: its JSON is damaged"),
}


@VERSIONS
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_one_sentence(lerobot, version, fault):
    made = lerobot(version, cameras=("top",))
    damage, sentence = FAULTS[fault]
    damage(made)
    with pytest.raises(UserError, match=sentence):
        read_all(made.root)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("fps", None, "fps is missing; it must be a number above 0"),
        ("fps", 0, "fps is 0; it must be a number above 0"),
        ("fps", -10, "fps is -10"),
        ("fps", "10", "fps is 10; it must be a number"),
        (
            "data_path",
            "data/{nothing}.parquet",
            "(data_path data/{nothing}.parquet, chunks_size 2) does not tell a file",
        ),
        (
            "data_path",
            "../{episode_index}.parquet",
            "(data_path ../{episode_index}.parquet, chunks_size 2) does not tell",
        ),
        ("data_path", "{episode_index:0999999999d}", "{episode_index:0999999999d}: does not exist"),
        ("chunks_size", "many", "chunks_size many) does not tell a file in the folder for episode 2"),
        ("features", [], "features is []; it must be an object"),
        (
            "features",
            {"action": {"dtype": "float32"}},
            "'action' cannot be used: info.json gives its dtype as float32 and its shape as None",
        ),
        ("features", {"action": 3}, "'action' cannot be used"),
        ("features", {"action": {"dtype": "complex", "shape": [2]}}, "'action' cannot be used.* dtype as complex"),
        ("features", {"action": {"dtype": "float32", "shape": [5]}}, "'action' has empty or ragged rows"),
        ("features", {"action": {"dtype": "float32", "shape": [10**5, 10**5]}}, "its shape as [100000, 100000]"),
    ],
)
def test_wrong_fields_of_info(lerobot, field, value, sentence):
    made = lerobot()
    made.info[field] = value
    if value is None:
        del made.info[field]
    made.save_info()
    with pytest.raises(UserError, match=re.escape(sentence).replace(r"\.\*", ".*")):
        read_episodes(made.root, ["action"])


@pytest.mark.parametrize(
    "text", ["[" * 100_000 + '"codebase_version"', '["codebase_version"]', '"codebase_version\xff']
)
def test_an_info_that_is_no_object(lerobot, text):
    made = lerobot()
    (made.root / "meta/info.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"info\.json: its JSON is damaged"):
        open_episodes(made.root)


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ({"bytes": None, "path": "frame_000000.png"}, "holds paths; embed the pictures"),
        ({"bytes": b"no picture", "path": None}, "is damaged"),
        (
            {"bytes": png(np.zeros((3, 3, 3), np.uint8)), "path": None},
            "has a picture of 3x3 pixels, and info.json says 5x4",
        ),
    ],
)
def test_wrong_pictures(lerobot, cell, sentence):
    made = lerobot(cameras=("wrist",))
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    replace_first(made, "observation.images.wrist", pa.array([cell] * 3, kind))
    with LeRobotReader(made.root) as reader:
        assert reader.read(0, ["action"])["action"].shape == (3, 2)
        with pytest.raises(UserError, match=f"column 'observation.images.wrist' {sentence}"):
            reader.read(0)


def test_values_that_are_missing(lerobot):
    made = lerobot()
    replace_first(made, "next.reward", pa.array([1.0, None, 2.0], pa.float32()))
    with LeRobotReader(made.root) as reader, pytest.raises(UserError, match=r"column 'next\.reward' has empty"):
        reader.read(0)


def test_frames_of_another_size(lerobot):
    made = lerobot(cameras=("top",))
    made.info["features"]["observation.images.top"]["shape"] = [16, 32, 3]
    made.save_info()
    with (
        LeRobotReader(made.root) as reader,
        pytest.raises(UserError, match=r"mp4: has a picture of 16x24 pixels.*says 16x32"),
    ):
        reader.read(0)


def test_wrong_lines_of_episodes(lerobot):
    path = lerobot().root / "meta/episodes.jsonl"
    good = path.read_text()
    for text, sentence in (
        (good + "{broken\n", "line 4 is damaged"),
        (good + good, "names an episode twice"),
        (good.replace('"length": 70', '"length": 0'), "episode_index 1 and length 0"),
        ("", "names no episode"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=sentence):
            LeRobotReader(path.parents[1])


def test_rows_that_do_not_belong_where_they_lie(lerobot):
    made = lerobot("v3.0")
    path = made.root / "data/chunk-000/file-001.parquet"
    table = pq.read_table(path)
    for values, sentence in ((np.full(6, 7), "holds 0 steps of episode 2"), ([2, 2, 0, 0, 2, 2], "holds 4 steps")):
        pq.write_table(replaced(table, "episode_index", pa.array(values)), path)
        with LeRobotReader(made.root) as reader:
            assert list(reader.faults) == [2]
            assert sentence in reader.faults[2]
            assert "file-001.parquet has rows of episodes that no table names" in reader.remarks[-1]
            np.testing.assert_array_equal(reader.read(1)["action"], made.episode("action", 1))


@VERSIONS
@pytest.mark.parametrize("name", ["frame_index", "timestamp", "all"])
def test_time_that_runs_backwards_is_a_fault_of_the_episode(lerobot, version, name):
    made = lerobot(version)
    path = sorted(made.root.glob("data/*/*.parquet"))[-1]
    table = pq.read_table(path)
    last = table[::-1] if name == "all" else replaced(table, name, table[name][::-1])
    pq.write_table(last, path)
    with LeRobotReader(made.root) as reader:
        assert list(reader.faults) == [2]
        first = "timestamp" if name == "timestamp" else "frame_index"
        assert f"time runs backwards in episode 2: {first} falls after its step 0" in reader.faults[2]


def test_a_type_that_one_file_has_alone_is_a_fault_of_its_episode(lerobot):
    made = lerobot()
    replace_first(made, "action", pa.array(["x"] * 3))
    assert read_episodes(made.root, ["state"]).steps == 79
    with pytest.raises(UserError, match=r"episode 0: .*000000\.parquet: has no column 'action', or of another type"):
        open_episodes(made.root, ["action"])
    with open_episodes(made.root, ["action"], skip_bad_episodes=True) as reader:
        np.testing.assert_array_equal(reader.read(0)["action"], made.episode("action", 1))


def test_every_row_must_have_the_shape(lerobot):
    made = lerobot()
    rows = [[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]]  # six numbers, as three rows of two
    replace_first(made, "action", pa.array(rows, pa.list_(pa.float32())))
    with LeRobotReader(made.root) as reader:
        with pytest.raises(UserError, match="column 'action' has empty"):
            reader.read(0)
        reader.read(0, ["state"])


@pytest.mark.parametrize(
    "rows", [{"episode_index": None}, {"episode_index": True}, {"length": 2.5}, {"length": 10**18}]
)
def test_rows_of_episodes_of_wrong_types(lerobot, rows):
    path = lerobot().root / "meta/episodes.jsonl"
    path.write_text(json.dumps({"episode_index": 0, "length": 3, "tasks": []} | rows))
    with pytest.raises(UserError, match=r"an episode has episode_index .* in the table; correct or remove"):
        LeRobotReader(path.parents[1])


def test_unknown_key(lerobot):
    with LeRobotReader(lerobot().root) as reader, pytest.raises(UserError, match="no key 'stat'; did you mean 'state'"):
        reader.read(0, ["stat"])


@pytest.mark.parametrize(("package", "keys"), [("pyarrow", "None"), ("av", "['images.top']")])
def test_a_package_that_is_missing_is_named(lerobot, package, keys):
    root = lerobot(cameras=("top",)).root
    program = (
        f"import sys; sys.modules['{package}'] = None\n"
        "from policy_accel.data.readers import open_episodes\n"
        f"reader = open_episodes({str(root)!r}, ['action'])\n"
        "print(reader.read(0, ['action'])['action'].shape)\n"
        f"reader.read(0, {keys})"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"the package {package}, which is not installed; {to_install('lerobot')}" in run.stderr
    assert run.stdout == ("(3, 2)\n" if package == "av" else "")  # numbers need no video library
