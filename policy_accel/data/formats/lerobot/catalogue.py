"""Which episodes a LeRobot data set has and where their rows and frames lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from policy_accel.data.formats.lerobot.layout import (
    DERIVED,
    EPISODES_LINES,
    EPISODES_TABLES,
    TASKS_LINES,
    TASKS_TABLE,
    V21,
    read_lines,
)
from policy_accel.data.formats.lerobot.tables import parquet_file, require_columns
from policy_accel.errors import UserError

_SCAN_ROWS = 65_536


@dataclass(frozen=True)
class VideoPlace:
    """Where the frames of an episode lie: a file and the second at which they begin."""

    path: Path
    start: float


@dataclass(frozen=True)
class EpisodeRow:
    """An episode as the tables of the data set have it.

    Attributes:
        index: LeRobot's episode_index.
        length: steps.
        tasks: in words.
        data: the parquet file.
        videos: camera -> place.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    videos: dict[str, VideoPlace]


@dataclass(frozen=True)
class Scan:
    """What the derived columns say.

    Attributes:
        starts: [E] int64, the first row of every episode in its file.
        irregular: the derived columns that are not what they must be.
        tasks: [E] int64, the task_index of every episode's first step.
    """

    starts: np.ndarray
    irregular: tuple[str, ...]
    tasks: np.ndarray


def read_catalogue(root: Path, info: dict[str, Any], cameras: Sequence[str]) -> tuple[list[EpisodeRow], list[str]]:
    """The episodes in order of their index, and the tasks in words by task_index ("" for a number without words).

    Raises:
        UserError: tables that are missing or damaged, a set without episodes, paths that cannot be made.
    """
    if info["codebase_version"] == V21:
        tasks = _tasks_by_number((line.get("task_index"), line.get("task")) for line in read_lines(root / TASKS_LINES))
        rows = sorted(read_lines(root / EPISODES_LINES), key=lambda line: line.get("episode_index", -1))
    else:
        tasks, rows = _read_task_table(root), _read_episode_tables(root, cameras)
    episodes: list[EpisodeRow] = []
    for row in rows:
        index, length = row.get("episode_index"), row.get("length")
        if not isinstance(index, int) or not isinstance(length, int) or index < 0 or length < 1:
            raise UserError(
                f"{root}: an episode has episode_index {index} and length {length} in the table of episodes; copy or "
                "download the data set again."
            )
        if episodes and episodes[-1].index == index:
            raise UserError(f"{root}: episode {index} is twice in the table of episodes; remove one of them.")
        episodes.append(_place(root, info, row, cameras))
    if not episodes:
        raise UserError(f"{root}: holds no episode; record some or choose another data set.")
    return episodes, tasks


def _place(root: Path, info: dict[str, Any], row: dict[str, Any], cameras: Sequence[str]) -> EpisodeRow:
    index, newer = row["episode_index"], info["codebase_version"] != V21
    tasks = row.get("tasks") or []

    def fields(of: str) -> dict[str, Any]:
        if newer:
            return {name: row[f"{of}/{name}"] for name in ("chunk_index", "file_index")}
        return {"episode_index": index, "episode_chunk": index // int(info.get("chunks_size") or 1000)}

    try:
        data = root / info["data_path"].format(**fields("data"))
        videos = {}
        for camera in cameras:
            path = info["video_path"].format(**fields(f"videos/{camera}"), video_key=camera)
            start = float(row[f"videos/{camera}/from_timestamp"]) if newer else 0.0
            videos[camera] = VideoPlace(root / path, start)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{root}: the file of episode {index} cannot be told from data_path or video_path of info.json and the "
            f"table of episodes ({error}); correct info.json or copy the data set again."
        ) from error
    listed = (tasks,) if isinstance(tasks, str) else tuple(str(task) for task in tasks)
    return EpisodeRow(index, row["length"], listed, data, videos)


def _tasks_by_number(pairs: Any) -> list[str]:
    tasks = {number: str(task) for number, task in pairs if isinstance(number, int) and number >= 0}
    return [tasks.get(number, "") for number in range(max(tasks, default=-1) + 1)]


def _read_task_table(root: Path) -> list[str]:
    path = root / TASKS_TABLE
    with parquet_file(path) as file:
        names = file.schema_arrow.names
        require_columns(path, names, ["task_index"])
        words = [name for name in names if name != "task_index"]
        # The words are the index of a pandas table; early writers of v3.0 left it without a name.
        word = "task" if "task" in words else "__index_level_0__"
        require_columns(path, names, [word if word in words else "task"])
        table = file.read(columns=["task_index", word])
    return _tasks_by_number(zip(table["task_index"].to_pylist(), table[word].to_pylist(), strict=True))


def _read_episode_tables(root: Path, cameras: Sequence[str]) -> list[dict[str, Any]]:
    wanted = ["episode_index", "tasks", "length", "data/chunk_index", "data/file_index"]
    wanted += [f"videos/{camera}/{field}" for camera in cameras for field in ("chunk_index", "file_index")]
    wanted += [f"videos/{camera}/from_timestamp" for camera in cameras]
    rows: list[dict[str, Any]] = []
    paths = sorted((root / EPISODES_TABLES).glob("*/*.parquet"))
    if not paths:
        raise UserError(f"{root / EPISODES_TABLES}: holds no table of episodes; copy or download the data set again.")
    for path in paths:
        with parquet_file(path) as file:
            require_columns(path, file.schema_arrow.names, wanted)
            rows += file.read(columns=wanted).select(wanted).to_pylist()
    return sorted(rows, key=lambda row: row["episode_index"])


def scan(episodes: Sequence[EpisodeRow], info: dict[str, Any]) -> Scan:
    """Read the derived columns of every data file, a batch at a time, and compare them with what they must be.

    Expected of step t of the episode at place p: frame_index t, timestamp t / fps (to the last bit of float32),
    episode_index p, index the number of steps before, task_index the same in the whole episode.

    Raises:
        UserError: a file that is missing or damaged, whose rows differ from the table of episodes, or in which the
            rows of an episode lie apart.
    """
    one_episode, fps = info["codebase_version"] == V21, float(info["fps"])
    indices = np.array([episode.index for episode in episodes])
    lengths = np.array([episode.length for episode in episodes])
    offsets = np.cumsum(lengths) - lengths
    starts, counts, tasks = np.full(len(episodes), -1), np.zeros_like(lengths), np.zeros_like(lengths)
    irregular: dict[str, None] = {}
    files: dict[Path, list[int]] = {}
    for place, episode in enumerate(episodes):
        files.setdefault(episode.data, []).append(place)
    for path, places in files.items():
        row, last = 0, -1
        for values, rows in _derived_columns(path, needed=() if one_episode else ("episode_index",)):
            which = np.full(rows, places[0])
            if not one_episode:
                which = _places(values["episode_index"], indices, set(places), path)
            for first in np.flatnonzero(np.diff(which, prepend=last)):  # an episode begins
                place = int(which[first])
                if starts[place] >= 0:
                    raise UserError(f"{path}: the rows of episode {indices[place]} lie apart; sort them by index.")
                starts[place] = row + first
                tasks[place] = values["task_index"][first] if "task_index" in values else 0
            counts += np.bincount(which, minlength=len(counts))
            step = np.arange(row, row + rows) - starts[which]
            expected = {
                "timestamp": (step / fps).astype(np.float32),
                "frame_index": step,
                "episode_index": which,
                "index": offsets[which] + step,
                "task_index": tasks[which],
            }
            irregular |= {name: None for name, found in values.items() if not _agree(found, expected[name])}
            row, last = row + rows, int(which[-1]) if rows else last
    for episode, count in zip(episodes, counts, strict=True):
        if count != episode.length:
            raise UserError(
                f"{episode.data}: holds {count} steps of episode {episode.index}, and the table of episodes says "
                f"{episode.length}; copy or download the data set again."
            )
    return Scan(starts, tuple(irregular), tasks)


def _derived_columns(path: Path, needed: Sequence[str]) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """Those of a file that it has, name -> [rows], and the rows, a batch at a time."""
    with parquet_file(path) as file:
        present = [name for name in DERIVED if name in file.schema_arrow.names]
        require_columns(path, present, needed)
        for batch in file.iter_batches(_SCAN_ROWS, columns=present or None):
            yield {name: _numbers(batch.column(name), path, name) for name in present}, len(batch)


def _agree(found: np.ndarray, expected: np.ndarray) -> bool:
    if expected.dtype == np.float32:
        return bool(np.all(np.abs(found.astype(np.float32) - expected) <= np.spacing(expected)))
    return np.array_equal(found, expected)


def _numbers(column: pa.Array, path: Path, name: str) -> np.ndarray:
    if column.null_count or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise UserError(f"{path}: column '{name}' holds {column.type} or empty values, not numbers; correct it.")
    numbers: np.ndarray = column.to_numpy(zero_copy_only=False)
    return numbers


def _places(found: np.ndarray, indices: np.ndarray, expected: set[int], path: Path) -> np.ndarray:
    """The place of the episode of every row, from its number `found` [rows]: [rows] int64."""
    places = np.minimum(np.searchsorted(indices, found), len(indices) - 1)
    for place in np.unique(places):
        if place not in expected or np.any(found[places == place] != indices[place]):
            wrong = found[places == place][0]
            raise UserError(
                f"{path}: holds steps of episode {wrong}, which the table of episodes does not place there; copy or "
                "download the data set again."
            )
    return places
