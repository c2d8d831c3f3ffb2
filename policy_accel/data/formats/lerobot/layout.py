"""What stands where in a LeRobot data set, versions 2.1 and 3.0.

Facts from huggingface/lerobot: `datasets/utils.py` at v0.3.3 (codebase version v2.1); `datasets/utils.py`,
`datasets/feature_utils.py` and `datasets/dataset_metadata.py` at v0.6 (v3.0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.formats.base import Feature
from policy_accel.errors import UserError
from policy_accel.files import explained

V21, V30 = "v2.1", "v3.0"

INFO = "meta/info.json"
OLD_INFO = "meta_data/info.json"  # v1.x
TASKS_LINES, EPISODES_LINES, STATISTICS_LINES = "meta/tasks.jsonl", "meta/episodes.jsonl", "meta/episodes_stats.jsonl"
TASKS_TABLE, EPISODES_TABLES, STATISTICS = "meta/tasks.parquet", "meta/episodes", "meta/stats.json"
OWN_LINES = "meta/policy_accel_episodes.jsonl"  # facts about episodes that LeRobot has no place for, one line each
OWN = "policy_accel"  # the same for the whole set, in info.json

DATA_PATHS = {
    V21: "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    V30: "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
VIDEO_PATHS = {
    V21: "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    V30: "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
EPISODES_PATH = EPISODES_TABLES + "/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"

DERIVED = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
"""The columns that every set has and that follow from the order of the steps; task_index from the episode's task."""

CAMERAS = ("image", "video")

_CONVERSIONS = {
    1: "`python -m lerobot.datasets.v2.convert_dataset_v1_to_v2`, then "
    "`python -m lerobot.datasets.v21.convert_dataset_v20_to_v21`, both of lerobot 0.3.3",
    2: "`python -m lerobot.datasets.v21.convert_dataset_v20_to_v21` of lerobot 0.3.3",
}


@dataclass(frozen=True)
class Column:
    """One feature of the set.

    Attributes:
        name: LeRobot's name, as "observation.state".
        dtype: LeRobot's dtype: a NumPy one, "image" (encoded in the table) or "video".
        feature: shape and dtype of a step in memory; pictures are [H, W, C].
        names: what LeRobot says about the axes, as it stands in info.json.
    """

    name: str
    dtype: str
    feature: Feature
    names: Any


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file with one JSON object a line.

    Raises:
        UserError: missing, or a line that is not a JSON object.
    """
    with explained(path, "read"), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if not isinstance(value, dict):
                raise UserError(f"{path}: line {number} is not a JSON object; copy or download the file again.")
            yield value


def is_lerobot(root: Path) -> bool:
    """Whether a folder has a LeRobot info.json of any version, however damaged the rest."""
    paths = [root / name for name in (INFO, OLD_INFO)]
    return any(path.is_file() and b"codebase_version" in path.read_bytes() for path in paths)


def read_info(root: Path) -> dict[str, Any]:
    """The content of info.json of a version that can be read.

    Raises:
        UserError: missing, or no JSON; another version (with the way to convert it); a field that is missing.
    """
    path = next((root / name for name in (INFO, OLD_INFO) if (root / name).is_file()), root / INFO)
    with explained(path, "read"):
        text = path.read_bytes()
    try:
        info = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error}); copy or download it again.") from error
    if not isinstance(info, dict) or "codebase_version" not in info:
        raise UserError(f"{path}: names no codebase_version, so it is of no LeRobot data set; check the path.")
    version = str(info["codebase_version"])
    found = re.fullmatch(r"v?(\d+)\.(\d+)(\.\d+)?", version)
    if not found or (found[1], found[2]) not in (("2", "1"), ("3", "0")):
        major = int(found[1]) if found else 0
        remedy = (
            f"convert it by {_CONVERSIONS[major]}"
            if major in _CONVERSIONS
            else "convert it by the lerobot that wrote it, or use a newer policy-accel"
        )
        raise UserError(f"{path}: codebase_version is {version}, and v2.1 and v3.0 can be read; {remedy}.")
    for field in ("fps", "features", "data_path"):
        if field not in info:
            raise UserError(f"{path}: has no field '{field}'; copy or download the data set again.")
    if not isinstance(info["fps"], int | float) or info["fps"] <= 0:
        raise UserError(f"{path}: fps is {info['fps']}; it must be a number above 0.")
    return info | {"codebase_version": f"v{found[1]}.{found[2]}"}


def read_columns(info: dict[str, Any], where: Path) -> tuple[dict[str, Column], list[str]]:
    """The features of info.json that hold numbers, name -> column, and the names of the others.

    Left out are text, and depth maps, which LeRobot stores quantised to 12 bits.

    Raises:
        UserError: a feature without dtype or shape, or of a dtype that is unknown.
    """
    shapes = info.get(OWN, {}).get("shapes", {})
    columns, others = {}, []
    for name, facts in info["features"].items():
        if not isinstance(facts, dict) or "dtype" not in facts or "shape" not in facts:
            raise UserError(f"{where}: feature '{name}' lacks dtype or shape; copy or download the data set again.")
        dtype, shape = str(facts["dtype"]), tuple(int(size) for size in facts["shape"])
        if dtype in ("string", "language") or _is_depth(facts):
            others.append(name)
            continue
        if dtype in CAMERAS:
            feature = Feature(_picture_shape(shape, facts.get("names"), name, where), np.dtype(np.uint8))
        else:
            try:
                known = np.dtype(dtype)
            except TypeError:
                known = np.dtype(object)
            if known.kind not in "biuf":
                raise UserError(f"{where}: feature '{name}' has dtype '{dtype}', which is unknown; correct it.")
            # LeRobot has no scalars: [1] stands for a number and for a vector of one.
            scalar = shape == (1,) and (name in DERIVED or name.startswith("next."))
            feature = Feature(tuple(shapes[name]) if name in shapes else () if scalar else shape, known)
        columns[name] = Column(name, dtype, feature, facts.get("names"))
    return columns, others


def _is_depth(facts: dict[str, Any]) -> bool:
    notes = [facts.get("info") or {}, facts.get("video_info") or {}]
    return any(note.get("is_depth_map") or note.get("video.is_depth_map") for note in notes)


def _picture_shape(shape: tuple[int, ...], names: Any, name: str, where: Path) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise UserError(f"{where}: camera '{name}' has shape {list(shape)}; it must be height, width, channels.")
    listed = [str(item) for item in names] if isinstance(names, list) and len(names) == 3 else []
    first = listed[0].startswith("channel") if listed else shape[2] not in (1, 3, 4)
    return (shape[1], shape[2], shape[0]) if first else (shape[0], shape[1], shape[2])
