"""What stands where in a LeRobot data set: info.json, the features and their names in memory.

Facts from huggingface/lerobot, `datasets/`: `utils.py` at v0.3.3 (v2.0 and v2.1, which differ in where statistics lie
alone); `utils.py`, `feature_utils.py` and `dataset_metadata.py` at v0.6 (v3.0).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from policy_accel.data.formats.base import Feature, decoding
from policy_accel.errors import UserError
from policy_accel.files import open_regular
from policy_accel.parsing import from_json

INFO, OLD_INFO, TASKS, EPISODES = "meta/info.json", "meta_data/info.json", "meta/tasks", "meta/episodes"
OWN = "policy_accel"  # in info.json: facts about the set that LeRobot has no place for
OWN_LINES = "meta/policy_accel_episodes.jsonl"  # the same for episodes, one line each
CAMERAS = ("image", "video")
DERIVED = {"timestamp": "float32"} | dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64")
"""The columns that every set has and that follow from the order of the steps; task_index from the episode's task."""

_NAMES = {"action": "action", "action_abs": "absolute_action", "sim_state": "sim_state"}
_NEXT = {key: f"next.{key}" for key in ("reward", "done", "success")}


class Column(NamedTuple):
    """One feature of the set."""

    name: str  # LeRobot's, as "observation.state"
    dtype: str  # LeRobot's: a NumPy one, "image" (encoded in the table) or "video"
    feature: Feature  # in memory; pictures are [H, W, C]
    axes: Any  # their "names" in info.json


@dataclass
class Episode:
    """An episode as the tables have it."""

    index: int  # LeRobot's episode_index
    length: int
    tasks: list[str]
    data: Path
    videos: dict[str, tuple[Path, float]]  # camera -> file, and the second in it at which the episode begins
    stored: dict[str, str]  # column -> dtype, "image" or "" in the file; {} while that is not read
    first: int = 0  # its first row in the file
    task: int = -1  # task_index of its first step


def entry(facts: dict[str, Any], name: str) -> dict[str, Any]:
    """The object at a name of a JSON object; {} where there is none."""
    value = facts.get(name)
    return value if isinstance(value, dict) else {}


def json_object(text: bytes, path: Path, part: str) -> dict[str, Any]:
    """The JSON object in a part of a file; raises UserError when there is none."""
    with decoding(path, part):
        value = from_json(text)
        if not isinstance(value, dict):
            raise ValueError("it is no JSON object")
    return value


def is_lerobot(root: Path) -> bool:
    """Whether a folder has a LeRobot info.json of any version, however damaged the rest."""
    paths = [root / name for name in (INFO, OLD_INFO)]
    return any(path.is_file() and b"codebase_version" in path.read_bytes() for path in paths)


def read_info(root: Path) -> dict[str, Any]:
    """The content of info.json, codebase_version as "v2.0", "v2.1" or "v3.0".

    Raises:
        UserError: missing, or no JSON; another version; a field that is missing or of another type than it must be.
    """
    path = next((root / name for name in (INFO, OLD_INFO) if (root / name).is_file()), root / INFO)
    with open_regular(path) as file:
        info = json_object(file.read(), path, "its JSON")
    version = str(info.get("codebase_version", "missing"))[:40]
    found = re.fullmatch(r"v?(2\.0|2\.1|3\.0)(\.\d+)?", version)
    if not found:
        remedy = "check the path, convert it by the lerobot that wrote it, or use a newer policy-accel"
        if re.match(r"v?1\.", version):
            remedy = "convert it by `python -m lerobot.datasets.v2.convert_dataset_v1_to_v2` of lerobot 0.3.3"
        raise UserError(f"{path}: codebase_version is {version}, and v2.0, v2.1 and v3.0 can be read; {remedy}.")
    info = {"chunks_size": 1000} | info
    fps = info.get("fps", 0)
    checks = {
        "fps": (type(fps) in (int, float) and 1e-6 < fps < 1e6, "a number above 0"),
        "features": (isinstance(info.get("features"), dict), "an object, name to dtype and shape"),
        "chunks_size": (_is_count(info["chunks_size"]), "a whole number above 0"),
    }
    for field, (sound, wanted) in checks.items():
        if not sound:
            raise UserError(f"{path}: {field} is {str(info.get(field, 'missing'))[:80]}; it must be {wanted}.")
    return info | {"codebase_version": f"v{found[1]}"}


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**40


def read_columns(info: dict[str, Any]) -> tuple[dict[str, Column], dict[str, str]]:
    """The features of info.json that hold numbers or pictures, name -> column, and why the others are left out."""
    columns, left_out, shapes = {}, {}, entry(entry(info, OWN), "shapes")
    for name in info["features"]:
        try:
            columns[name] = _column(name, entry(info["features"], name), shapes.get(name))
        except ValueError as reason:
            left_out[name] = str(reason)
    return columns, left_out


def _column(name: str, facts: dict[str, Any], own_shape: Any) -> Column:
    dtype, shape, axes = str(facts.get("dtype"))[:40], facts.get("shape"), facts.get("names")
    notes = entry(facts, "video_info") | entry(facts, "info")
    if dtype in ("string", "language"):
        raise ValueError("it holds text")
    if notes.get("is_depth_map") or notes.get("video.is_depth_map"):
        raise ValueError("it is a depth map, which LeRobot keeps in 12 bits")
    if not isinstance(shape, list) or not all(map(_is_count, shape)) or math.prod(shape) > 2**27:
        raise ValueError(f"info.json gives its shape as {str(shape)[:40]}")
    if dtype in CAMERAS:
        told = axes if isinstance(axes, list) and len(axes) == 3 else []
        if str(told[0]).startswith("channel") if told else shape[-1:] not in ([1], [3], [4]):
            shape = [*shape[1:], *shape[:1]]
        if len(shape) != 3 or shape[2] not in (1, 3, 4):
            raise ValueError(f"info.json gives its shape as {facts['shape']}, and pictures have 1, 3 or 4 channels")
    elif not re.fullmatch(r"bool|u?int(8|16|32|64)|float(16|32|64)", dtype):
        raise ValueError(f"info.json gives its dtype as {dtype}")
    elif shape == [1]:  # LeRobot has no scalars: [1] stands for a number and for a vector of one
        scalar = name in DERIVED or name.startswith("next.") if own_shape is None else own_shape == []
        shape = [] if scalar else [1]
    return Column(name, dtype, Feature(tuple(shape), np.dtype("uint8" if dtype in CAMERAS else dtype)), axes)


def to_keys(names: Iterable[str], known: dict[str, str]) -> dict[str, str]:
    """LeRobot's name -> key in memory, the known one or without prefix; the second of two that are alike keeps it."""
    keys: dict[str, str] = {}
    for name in names:
        following = re.sub(r"^next\.observation\.", "next_obs.", name)
        short = name.removeprefix("next.") if name in _NEXT.values() else following.removeprefix("observation.")
        key = known.get(name) or short or name
        keys[name] = name if key in keys.values() else key
    return keys


def to_names(features: dict[str, Feature], known: dict[str, str], *, tasks: bool) -> dict[str, str]:
    """Key in memory -> LeRobot's name, the known one or the way back of `to_keys`.

    LeRobot takes every name that begins with "action" for an action of the policy, so absolute actions beside the
    relative ones are `absolute_action`. The names of the derived columns are taken, but for times, and tasks if there
    are any in words, that were recorded step by step.
    """
    names: dict[str, str] = {}
    for key, feature in features.items():
        step_by_step = (key == "timestamp" or (key == "task_index" and tasks)) and not feature.shape
        recorded = step_by_step and feature.dtype == DERIVED[key]
        following = re.sub(r"^next_obs\.", "next.observation.", key)
        usual = following if following != key else f"observation.{key}"
        own = known.get(key) or (_NAMES | _NEXT).get(key, usual)
        names[key] = key if recorded else own.replace("/", ".")
        while not recorded and names[key] in (*DERIVED, *(name for other, name in names.items() if other != key)):
            names[key] += "_2"
    return names
