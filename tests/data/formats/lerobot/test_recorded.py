"""Data sets that LeRobot's own code recorded: 0.3.3 (v2.1) and 0.4.4 (v3.0), from the numbers of `drawn`.

Both have three episodes (6, 9, 5 steps at 15 Hz, tasks "pick", "place", "pick"), one camera as AV1 video and one as
PNG in the table.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from policy_accel.data.formats.lerobot.reader import LeRobotReader
from policy_accel.data.formats.lerobot.writer import write_lerobot

RECORDED = Path(__file__).parent / "recorded"
FILES = {"v2.1": "v2.1_lerobot_0.3.3.zip", "v3.0": "v3.0_lerobot_0.4.4.zip"}
LENGTHS = (6, 9, 5)


def drawn():
    rng = np.random.default_rng(1)
    steps = []
    for episode, length in enumerate(LENGTHS):
        rng.integers(0, 255, (64, 64, 3))
        for step in range(length):
            image = np.zeros((64, 64, 3), np.uint8)
            image[:, :, 0] = (step * 9) % 255
            image[10:30, (step * 3) % 48 : (step * 3) % 48 + 10] = 255
            image[..., 2] = episode * 60
            steps.append(
                {
                    "state": rng.normal(size=3).astype(np.float32),
                    "env": rng.normal(size=(4, 2)).astype(np.float32),
                    "action": rng.normal(size=2).astype(np.float32),
                    "reward": np.float32(rng.normal()),
                    "done": step == length - 1,
                    "images.top": image,
                    "images.wrist": rng.integers(0, 255, (8, 8, 3)).astype(np.uint8),
                }
            )
    return {key: np.stack([step[key] for step in steps]) for key in steps[0]}


@pytest.fixture(params=FILES)
def recorded(request, tmp_path):
    with zipfile.ZipFile(RECORDED / FILES[request.param]) as archive:
        archive.extractall(tmp_path / "recorded")
    return request.param, tmp_path / "recorded"


def test_what_lerobot_recorded_is_read(recorded):
    version, root = recorded
    wanted = drawn()
    with LeRobotReader(root) as reader:
        assert reader.layout == f"LeRobot {version}"
        assert reader.episode_ends.tolist() == [6, 15, 20]
        assert reader.metadata["fps"] == 15
        facts = reader.metadata["lerobot"]
        assert (facts["robot_type"], facts["tasks"]) == ("panda", ["pick", "place"])
        assert facts["features"]["state"]["names"] == ["a", "b", "c"]
        assert [reader.episode_metadata(n)["task"] for n in range(3)] == ["pick", "place", "pick"]
        assert list(reader.features) == list(wanted)
        for episode, (start, stop) in enumerate(((0, 6), (6, 15), (15, 20))):
            for key, values in reader.read(episode).items():
                if key == "images.top":  # AV1, halved colour; one step of the picture changes it by 3 on average
                    assert np.abs(values.astype(int) - wanted[key][start:stop]).mean() < 2.5
                    assert np.abs(values[1:].astype(int) - wanted[key][start : stop - 1]).mean() > 4
                else:
                    np.testing.assert_array_equal(values, wanted[key][start:stop])


@pytest.fixture
def newer(tmp_path):
    with zipfile.ZipFile(RECORDED / FILES["v3.0"]) as archive:
        archive.extractall(tmp_path / "recorded")
    with LeRobotReader(tmp_path / "recorded") as reader:
        write_lerobot(tmp_path / "ours", reader)
    return tmp_path / "recorded", tmp_path / "ours"


def test_the_way_back_gives_the_files_that_lerobot_wrote(newer):
    root, ours = newer
    info, own = (json.loads((folder / "meta/info.json").read_text()) for folder in (root, ours))
    assert set(own) - {"policy_accel"} == set(info)
    notes = [facts["features"]["observation.images.top"].pop("info") for facts in (info, own)]
    for note in notes:
        note.pop("video.is_depth_map", note.pop("is_depth_map", None))
    assert notes[1] == notes[0] | {"video.codec": "h264", "video.pix_fmt": "gbrp"}
    assert {key: own[key] for key in info} == info

    for path in sorted(root.glob("data/*/*.parquet")):
        theirs, mine = (pq.ParquetFile(folder / path.relative_to(root)) for folder in (root, ours))
        assert mine.read().equals(theirs.read())  # the PNG bytes too
        assert mine.schema_arrow.equals(theirs.schema_arrow)
        assert mine.schema.equals(theirs.schema)
        features = [json.loads(file.schema_arrow.metadata[b"huggingface"]) for file in (theirs, mine)]
        features[0].pop("fingerprint", None)
        for feature in features[1]["info"]["features"].values():  # datasets 4 renamed Sequence, and reads both names
            feature["_type"] = feature["_type"].replace("Sequence", "List")
        assert features[1] == features[0]
        groups = [
            [(file.metadata.row_group(n).num_rows, file.metadata.row_group(n).column(0).compression) for n in range(k)]
            for file, k in ((theirs, theirs.num_row_groups), (mine, mine.num_row_groups))
        ]
        assert groups[1] == groups[0]
    theirs, mine = (pq.read_table(folder / "meta/tasks.parquet") for folder in (root, ours))
    assert mine["task"].to_pylist() == theirs[theirs.schema.names[1]].to_pylist()
    assert mine["task_index"].to_pylist() == theirs["task_index"].to_pylist()


def test_statistics_are_those_that_lerobot_computed(newer):
    root, ours = newer
    theirs, mine = (pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet") for folder in (root, ours))
    assert mine.schema.names == theirs.schema.names
    plain = [name for name in mine.schema.names if not name.startswith(("stats/", "videos/"))]
    assert mine.select(plain).equals(theirs.select(plain))
    times = [name for name in mine.schema.names if name.startswith("videos/")]
    assert len(times) == 4
    for name in times:
        np.testing.assert_allclose(mine[name].to_numpy(), theirs[name].to_numpy(), rtol=1e-12)
    pairs = [(unflatten(one), unflatten(two)) for one, two in zip(theirs.to_pylist(), mine.to_pylist(), strict=True)]
    pairs.append(tuple(json.loads((folder / "meta/stats.json").read_text()) for folder in (root, ours)))
    for theirs, mine in pairs:
        assert set(mine) == set(theirs)
        for name in theirs:
            assert set(mine[name]) == set(theirs[name])
            if name == "observation.images.top":
                continue  # theirs are of the frames before they were compressed
            spread = np.array(mine[name]["max"], float) - np.array(mine[name]["min"], float)
            for level, values in theirs[name].items():
                if level[0] == "q" and theirs is pairs[-1][0]:
                    continue  # 0.4.4 averages the episodes' quantiles, 0.6 takes the outermost
                if level == "std" and name == "observation.images.wrist":
                    continue  # 0.4.4 squares in 8 bits; 0.6 does not
                # LeRobot reads quantiles off a histogram of 5000 bins.
                allowed = 1e-6 + (spread / 4999 if level[0] == "q" else 0)
                found = np.array(mine[name][level], float)
                assert found.shape == np.shape(values)
                assert np.all(np.abs(found - np.array(values, float)) <= allowed + 1e-6 * np.abs(found)), (name, level)


def unflatten(row):
    result = {}
    for column, values in row.items():
        if column.startswith("stats/"):
            _, name, level = column.split("/")
            result.setdefault(name, {})[level] = values
    return result
