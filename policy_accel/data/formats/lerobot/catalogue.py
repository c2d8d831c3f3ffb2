"""Which episodes a LeRobot data set has and in which files they lie, by its tables of episodes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from policy_accel.data.formats.lerobot.layout import (
    EPISODES_LINES,
    EPISODES_TABLES,
    TASKS_LINES,
    TASKS_TABLE,
    read_lines,
)
from policy_accel.data.formats.lerobot.tables import parquet_file, require_columns
from policy_accel.errors import UserError


@dataclass(frozen=True)
class EpisodeRow:
    """An episode as the tables of the data set have it.

    Attributes:
        index: LeRobot's episode_index.
        length: steps.
        tasks: in words.
        data: the parquet file.
        videos: camera -> the file and the second in it at which the episode begins; no entry where none is named.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    videos: dict[str, tuple[Path, float]]


def read_catalogue(root: Path, info: dict[str, Any], cameras: Sequence[str]) -> tuple[list[EpisodeRow], list[str]]:
    """The episodes in order of their index, and the tasks in words by task_index ("" for a number without words).

    Raises:
        UserError: tables that are missing or damaged, a set without episodes, paths that cannot be made.
    """
    newer = info["codebase_version"] == "v3.0"
    rows = _episode_tables(root, cameras) if newer else list(read_lines(root / EPISODES_LINES))
    for row in rows:
        index, length = row.get("episode_index"), row.get("length")
        if type(index) is not int or type(length) is not int or not (0 <= index < 2**40 and 0 < length < 2**40):
            raise UserError(
                f"{root}: an episode has episode_index {str(index)[:40]} and length {str(length)[:40]} in the table of "
                "episodes; correct or remove that row."
            )
    rows.sort(key=lambda row: row["episode_index"])
    for row, following in pairwise(rows):
        if row["episode_index"] == following["episode_index"]:
            raise UserError(
                f"{root}: episode {row['episode_index']} is twice in the table of episodes; remove one of them."
            )
    if not rows:
        raise UserError(f"{root}: holds no episode; record some or choose another data set.")
    return [_episode(root, info, row, cameras, newer) for row in rows], _read_tasks(root, newer)


def _episode(root: Path, info: dict[str, Any], row: dict[str, Any], cameras: Sequence[str], newer: bool) -> EpisodeRow:
    index = row["episode_index"]
    older = {"episode_index": index, "episode_chunk": index // info.get("chunks_size", 1000)}

    def path(template: str, place: str, **names: str) -> Path:
        fields = {name: row.get(f"{place}/{name}") for name in ("chunk_index", "file_index")} if newer else older
        found = Path(info[template].format(**fields, **names))
        if found.is_absolute() or ".." in found.parts:
            raise ValueError(f"{found} leads out of the folder")
        return root / found

    try:
        data = path("data_path", "data")
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise UserError(
            f"{root}: the file of episode {index} cannot be told from data_path of info.json and the table of "
            f"episodes ({error}); correct one of them."
        ) from error
    videos = {}
    for camera in cameras:
        try:
            start = float(row[f"videos/{camera}/from_timestamp"]) if newer else 0.0
            if math.isfinite(start):
                videos[camera] = path("video_path", f"videos/{camera}", video_key=camera), start
        except (KeyError, IndexError, ValueError, TypeError, AttributeError):
            continue  # the camera has no video of this episode
    tasks = row.get("tasks") or []
    listed = tasks if isinstance(tasks, list) else [tasks]
    return EpisodeRow(index, row["length"], tuple(str(task) for task in listed), data, videos)


def _read_tasks(root: Path, newer: bool) -> list[str]:
    """Tasks by number; [] without a file of them."""
    path = root / (TASKS_TABLE if newer else TASKS_LINES)
    if not path.exists():
        return []
    pairs: Iterable[tuple[Any, Any]]
    if newer:
        with parquet_file(path) as file:
            names = file.schema_arrow.names
            require_columns(path, names, ["task_index"])
            # The words are the index of a pandas table; early writers of v3.0 left it without a name.
            word = "task" if "task" in names else "__index_level_0__"
            require_columns(path, names, [word if word in names else "task"])
            table = file.read(columns=["task_index", word])
        pairs = zip(table["task_index"].to_pylist(), table[word].to_pylist(), strict=True)
    else:
        pairs = ((line.get("task_index"), line.get("task")) for line in read_lines(path))
    tasks = {number: str(task) for number, task in pairs if type(number) is int and 0 <= number < 2**20}
    return [tasks.get(number, "") for number in range(max(tasks, default=-1) + 1)]


def _episode_tables(root: Path, cameras: Sequence[str]) -> list[dict[str, Any]]:
    needed = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    fields = ("chunk_index", "file_index", "from_timestamp")
    wanted = [*needed, "tasks", *(f"videos/{camera}/{field}" for camera in cameras for field in fields)]
    rows: list[dict[str, Any]] = []
    paths = sorted((root / EPISODES_TABLES).glob("*/*.parquet"))
    if not paths:
        raise UserError(f"{root / EPISODES_TABLES}: holds no table of episodes; copy or download the data set again.")
    for path in paths:
        with parquet_file(path) as file:
            names = file.schema_arrow.names
            require_columns(path, names, needed)
            present = [name for name in wanted if name in names]
            rows += file.read(columns=present).select(present).to_pylist()
    return rows


def split_filters(splits: Any, indices: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """The names of info.json's splits ("train": "0:40") that each episode belongs to, and those that are no range.

    A range counts the episodes as they lie when the last one ends at their number, else LeRobot's episode_index.

    Args:
        splits: as info.json has them.
        indices: episode_index of every episode.
    """
    ranges, odd = {}, []
    for name, span in splits.items() if isinstance(splits, dict) else ():
        found = re.fullmatch(r"(\d{1,12}):(\d{1,12})", str(span))
        if found:
            ranges[name] = range(int(found[1]), int(found[2]))
        else:
            odd.append(name)
    by_place = max((span.stop for span in ranges.values()), default=0) == len(indices)
    numbers = range(len(indices)) if by_place else indices
    return [[name for name, span in ranges.items() if number in span] for number in numbers], odd
