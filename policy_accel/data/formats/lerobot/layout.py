"""What stands where in a LeRobot data set, versions 2.0, 2.1 and 3.0.

Facts from huggingface/lerobot: `datasets/utils.py` at v0.3.3 (codebase versions v2.0 and v2.1, which differ in where
statistics lie alone); `datasets/utils.py`, `datasets/feature_utils.py` and `datasets/dataset_metadata.py` at v0.6
(v3.0).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.formats.base import Feature
from policy_accel.errors import UserError
from policy_accel.files import open_regular

INFO, OLD_INFO = "meta/info.json", "meta_data/info.json"  # the second of v1.x
TASKS_LINES, EPISODES_LINES = "meta/tasks.jsonl", "meta/episodes.jsonl"  # of v2.x
TASKS_TABLE, EPISODES_TABLES, STATISTICS = "meta/tasks.parquet", "meta/episodes", "meta/stats.json"
OWN_LINES = "meta/policy_accel_episodes.jsonl"  # facts about episodes that LeRobot has no place for, one line each
OWN = "policy_accel"  # the same for the whole set, in info.json

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
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
_TEMPLATE = r"(?:[^{}]|\{\w+(?::0?\d{1,2}d)?\})+"  # no attribute, no width that fills the memory


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


def json_object(text: bytes, where: str) -> dict[str, Any]:
    """The JSON object in some bytes.

    Raises:
        UserError: there is none.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not valid JSON ({error}); copy or download it again.") from error
    if not isinstance(value, dict):
        raise UserError(f"{where} is not a JSON object; copy or download it again.")
    return value


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file with one JSON object a line.

    Raises:
        UserError: missing, or a line that is not a JSON object.
    """
    with open_regular(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield json_object(line, f"{path}: line {number}")


def is_lerobot(root: Path) -> bool:
    """Whether a folder has a LeRobot info.json of any version, however damaged the rest."""
    paths = [root / name for name in (INFO, OLD_INFO)]
    return any(path.is_file() and b"codebase_version" in path.read_bytes() for path in paths)


def read_info(root: Path) -> dict[str, Any]:
    """The content of info.json, codebase_version as "v2.0", "v2.1" or "v3.0".

    Raises:
        UserError: missing, or no JSON; another version (with the way to convert it); a field that is missing or of
            another type than it must be.
    """
    path = next((root / name for name in (INFO, OLD_INFO) if (root / name).is_file()), root / INFO)
    with open_regular(path) as file:
        info = json_object(file.read(), f"{path}:")
    if "codebase_version" not in info:
        raise UserError(f"{path}: names no codebase_version, so it is of no LeRobot data set; check the path.")
    version = str(info["codebase_version"])
    found = re.fullmatch(r"v?(2\.0|2\.1|3\.0)(\.\d+)?", version)
    if not found:
        old = re.match(r"v?1\.", version)
        remedy = (
            "`python -m lerobot.datasets.v2.convert_dataset_v1_to_v2` of lerobot 0.3.3"
            if old
            else "the lerobot that wrote it, or use a newer policy-accel"
        )
        raise UserError(
            f"{path}: codebase_version is {version[:40]}, and v2.0, v2.1 and v3.0 can be read; convert it by {remedy}."
        )
    for field in ("fps", "features", "data_path"):
        if field not in info:
            raise UserError(f"{path}: has no field '{field}'; add it as the recorder had it, or copy the set again.")
    checks = {
        "fps": (_is_rate(info["fps"]), "a number above 0"),
        "features": (isinstance(info["features"], dict), "an object, name to dtype and shape"),
        "data_path": (_is_template(info["data_path"]), "a path with fields, as LeRobot's own sets have it"),
        "video_path": (
            _is_template(info.get("video_path") or "-"),
            "a path with fields, as LeRobot's own sets have it",
        ),
        "chunks_size": (_is_count(info.get("chunks_size", 1000)), "a whole number above 0"),
    }
    for field, (sound, wanted) in checks.items():
        if not sound:
            raise UserError(f"{path}: {field} is {str(info[field])[:80]}; it must be {wanted}.")
    return info | {"codebase_version": f"v{found[1]}"}


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 1e-6 < value < 1e6


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**40


def _is_template(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(_TEMPLATE, value) is not None


def own_facts(info: dict[str, Any]) -> dict[str, Any]:
    """What this package wrote into info.json to read the set back as it was; {} for what others wrote."""
    own = info.get(OWN)
    parts = ("keys", "shapes", "metadata")
    if not isinstance(own, dict) or not all(isinstance(own.get(name, {}), dict) for name in parts):
        return {}
    return own | {"keys": {name: key for name, key in own.get("keys", {}).items() if isinstance(key, str)}}


def read_columns(info: dict[str, Any]) -> tuple[dict[str, Column], dict[str, str]]:
    """The features of info.json that hold numbers or pictures, name -> column, and why the others are left out."""
    columns, left_out = {}, {}
    shapes = own_facts(info).get("shapes", {})
    for name, facts in info["features"].items():
        try:
            columns[name] = _column(name, facts if isinstance(facts, dict) else {}, shapes)
        except ValueError as reason:
            left_out[name] = str(reason)
    return columns, left_out


def _column(name: str, facts: dict[str, Any], shapes: dict[str, Any]) -> Column:
    dtype, shape, names = (facts.get(field) for field in ("dtype", "shape", "names"))
    notes = [note for note in (facts.get("info"), facts.get("video_info")) if isinstance(note, dict)]
    if dtype in ("string", "language"):
        raise ValueError("it holds text")
    if any(note.get("is_depth_map") or note.get("video.is_depth_map") for note in notes):
        raise ValueError("it is a depth map, which LeRobot keeps in 12 bits")
    largest = 2**27 if dtype in CAMERAS else 2**22
    if not isinstance(shape, list) or not all(map(_is_count, shape)) or math.prod(shape) > largest:
        raise ValueError(f"info.json gives its shape as {str(shape)[:40]}")
    if dtype in CAMERAS:
        return Column(name, str(dtype), Feature(_picture_shape(shape, names), np.dtype(np.uint8)), names)
    if not isinstance(dtype, str) or not re.fullmatch(r"bool|u?int(8|16|32|64)|float(16|32|64)", dtype):
        raise ValueError(f"info.json gives its dtype as {str(dtype)[:40]}")
    if shape == [1]:  # LeRobot has no scalars: [1] stands for a number and for a vector of one
        scalar = shapes[name] == [] if name in shapes else name in DERIVED or name.startswith("next.")
        shape = [] if scalar else [1]
    return Column(name, dtype, Feature(tuple(shape), np.dtype(dtype)), names)


def _picture_shape(shape: list[int], names: Any) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"info.json gives its shape as {shape} instead of height, width, channels")
    listed = [str(item) for item in names] if isinstance(names, list) and len(names) == 3 else []
    first = listed[0].startswith("channel") if listed else shape[2] not in (1, 3, 4)
    height, width, channels = (*shape[1:], shape[0]) if first else shape
    if channels not in (1, 3, 4):
        raise ValueError(f"info.json gives its shape as {shape}, and pictures have 1, 3 or 4 channels")
    return height, width, channels
