"""What stands where in a LeRobot data set, after `datasets/` of lerobot v0.3.3 (v2.0, v2.1) and v0.6 (v3.0)."""

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
from policy_accel.parsing import from_json, is_number

INFO, OLD_INFO, TASKS, EPISODES = "meta/info.json", "meta_data/info.json", "meta/tasks", "meta/episodes"
OWN = "policy_accel"  # in info.json: facts about the set that LeRobot has no place for
OWN_LINES = "meta/policy_accel_episodes.jsonl"  # the same for episodes, one line each
CAMERAS = ("image", "video")
DERIVED = {"timestamp": "float32"} | dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64")
"""The columns that every set has and that follow from the order of the steps; task_index from the episode's task."""

_NEXT = {f"next.{key}": key for key in ("reward", "done", "success")}
_NAMES = {key: name for name, key in _NEXT.items()} | {"action": "action", "sim_state": "sim_state"}
_NAMES["action_abs"] = "absolute_action"  # LeRobot takes what begins with "action" for an action of the policy


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
    videos: dict[str, tuple[Path, float]]  # "videos/<camera>" -> file, and the second in it at which the episode begins
    first: int = 0  # its first row in the file
    task: int = -1  # task_index of its first step


def entry(facts: dict[str, Any], name: str) -> dict[str, Any]:
    """The object at a name of a JSON object; {} where there is none."""
    value = facts.get(name)
    return value if isinstance(value, dict) else {}


def json_object(text: bytes, path: Path, part: str) -> dict[str, Any]:
    """The JSON object in a part of a file; raises UserError when there is none."""
    with decoding(path, part):
        return {**from_json(text)}


def check_size(height: int, width: int, shape: tuple[int, ...], at: str) -> None:
    """Raise UserError for a picture of another size than a feature's shape [H, W, C]."""
    if (height, width) != shape[:2]:
        has = f"a picture of {height}x{width} pixels, and info.json says {shape[0]}x{shape[1]}"
        raise UserError(f"{at} has {has}; correct the shape there.")


def is_lerobot(root: Path) -> bool:
    """Whether a folder has a LeRobot info.json of any version, however damaged the rest."""
    paths = [root / name for name in (INFO, OLD_INFO)]
    return any(path.is_file() and b"codebase_version" in path.read_bytes() for path in paths)


def read_info(root: Path) -> dict[str, Any]:
    """The content of info.json, codebase_version as "v2.0", "v2.1" or "v3.0"; UserError where it cannot be used."""
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
    for field, sound, wanted in (
        ("fps", is_number(info.get("fps")) and 1e-6 < info["fps"] < 1e6, "a number above 0"),
        ("features", isinstance(info.get("features"), dict), "an object, name to dtype and shape"),
    ):
        if not sound:
            raise UserError(f"{path}: {field} is {str(info.get(field, 'missing'))[:80]}; it must be {wanted}.")
    return info | {"codebase_version": f"v{found[1]}"}


def read_column(info: dict[str, Any], name: str) -> Column:
    """A feature of info.json that holds numbers or pictures; a ValueError says why one that does not is left out."""
    facts = entry(info["features"], name)
    dtype, shape, axes = str(facts.get("dtype"))[:40], facts.get("shape"), facts.get("names")
    notes = entry(facts, "video_info") | entry(facts, "info")
    if notes.get("is_depth_map") or notes.get("video.is_depth_map"):
        raise ValueError("it is a depth map, which LeRobot keeps in 12 bits")
    if isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape) and math.prod(shape) <= 2**27:
        if dtype in CAMERAS and len(shape) == 3:
            told = axes if isinstance(axes, list) and len(axes) == 3 else []
            channels_first = str(told[0]).startswith("channel") if told else shape[2] not in (1, 3, 4)
            feature = Feature((*shape[1:], shape[0]) if channels_first else tuple(shape), np.dtype(np.uint8))
            if feature.is_image:
                return Column(name, dtype, feature, axes)
        elif re.fullmatch(r"bool|u?int(8|16|32|64)|float(16|32|64)", dtype):
            # LeRobot has no scalars: [1] stands for a number and for a vector of one.
            usual = [] if name in DERIVED or name.startswith("next.") else [1]
            scalar = shape == [1] and entry(entry(info, OWN), "shapes").get(name, usual) == []
            return Column(name, dtype, Feature(() if scalar else tuple(shape), np.dtype(dtype)), axes)
    said = f"info.json gives its dtype as {dtype} and its shape as {str(shape)[:40]}"
    raise ValueError(f"{said}, and numbers, or pictures of 1, 3 or 4 channels, can be read")


def derived(steps: np.ndarray, fps: float, episode: int, begin: int, task: int) -> dict[str, np.ndarray]:
    """The derived columns of some steps of an episode, counted from its first, which is row `begin` of the set."""
    times = (steps / fps).astype(np.float32)
    columns = (times, steps, np.full_like(steps, episode), begin + steps, np.full_like(steps, task))
    return dict(zip(DERIVED, columns, strict=True))


def spans(splits: dict[str, Any]) -> dict[str, range]:
    """The splits of info.json that are "first:end" in numbers, name -> episodes."""
    found = {name: re.fullmatch(r"(\d{1,12}):(\d{1,12})", str(span)) for name, span in splits.items()}
    return {name: range(int(span[1]), int(span[2])) for name, span in found.items() if span}


def to_keys(names: Iterable[str], known: dict[str, str]) -> dict[str, str]:
    """LeRobot's name -> key in memory, the known one or without prefix; the second of two that are alike keeps it."""
    keys: dict[str, str] = {}
    for name in names:
        short = re.sub(r"^next\.observation\.", "next_obs.", name).removeprefix("observation.")
        key = (_NEXT | known).get(name) or short or name
        keys[name] = name if key in keys.values() else key
    return keys


def to_names(features: dict[str, Feature], known: dict[str, str], *, tasks: bool) -> dict[str, str]:
    """Key in memory -> LeRobot's name, the known one or the way back of `to_keys`; those of the derived columns are
    taken, but for times, and tasks if there are any in words, that were recorded step by step."""
    names: dict[str, str] = {}
    for key, feature in features.items():
        usual = re.sub(r"^observation\.next_obs\.", "next.observation.", f"observation.{key}")
        name = (_NAMES | known).get(key, usual).replace("/", ".")
        if (key == "timestamp" or (key == "task_index" and tasks)) and feature == Feature((), np.dtype(DERIVED[key])):
            name = key
        else:
            while name in (*DERIVED, *names.values()):
                name += "_2"
        names[key] = name
    return names
