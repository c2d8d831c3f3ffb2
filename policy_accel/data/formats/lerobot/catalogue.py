"""Which episodes a LeRobot data set has and where their rows and frames lie."""

from __future__ import annotations

from collections.abc import Sequence
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
    index = row["episode_index"]
    tasks = row.get("tasks") or []
    fields = {"episode_index": index, "episode_chunk": index // int(info.get("chunks_size") or 1000)}
    videos = {}
    try:
        if info["codebase_version"] == V21:
            data = root / info["data_path"].format(**fields)
            for camera in cameras:
                videos[camera] = VideoPlace(root / info["video_path"].format(**fields, video_key=camera), 0.0)
        else:
            data = root / info["data_path"].format(
                chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
            )
            for camera in cameras:
                path = info["video_path"].format(
                    video_key=camera,
                    chunk_index=row[f"videos/{camera}/chunk_index"],
                    file_index=row[f"videos/{camera}/file_index"],
                )
                videos[camera] = VideoPlace(root / path, float(row[f"videos/{camera}/from_timestamp"]))
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
    scanner = _Scanner(episodes, float(info["fps"]))
    files: dict[Path, list[int]] = {}
    for place, episode in enumerate(episodes):
        files.setdefault(episode.data, []).append(place)
    for path, places in files.items():
        scanner.read(path, places, one_episode=info["codebase_version"] == V21)
    for episode, count in zip(episodes, scanner.counts, strict=True):
        if count != episode.length:
            raise UserError(
                f"{episode.data}: holds {count} steps of episode {episode.index}, and the table of episodes says "
                f"{episode.length}; copy or download the data set again."
            )
    return Scan(scanner.starts, tuple(scanner.irregular), scanner.tasks)


class _Scanner:
    """What is learnt of each episode, by its place: the row of its file that it starts at (-1 before it is met), its
    steps and its task; and the names of derived columns that do not hold what they must.
    """

    def __init__(self, episodes: Sequence[EpisodeRow], fps: float) -> None:
        lengths = np.array([episode.length for episode in episodes])
        self.starts, self.counts = np.full(len(episodes), -1), np.zeros(len(episodes), np.int64)
        self.tasks = np.zeros(len(episodes), np.int64)
        self.irregular: dict[str, None] = {}
        self._indices = np.array([episode.index for episode in episodes])
        self._offsets, self._fps = np.cumsum(lengths) - lengths, fps

    def read(self, path: Path, places: list[int], *, one_episode: bool) -> None:
        """Read a file that holds the episodes at `places`."""
        row, last = 0, -1
        with parquet_file(path) as file:
            present = [name for name in DERIVED if name in file.schema_arrow.names]
            if not one_episode:
                require_columns(path, present, ["episode_index"])
            for batch in file.iter_batches(_SCAN_ROWS, columns=present or None):
                values = {name: _numbers(batch.column(name), path, name) for name in present}
                if one_episode:
                    which = np.full(len(batch), places[0])
                else:
                    which = _places(values["episode_index"], self._indices, set(places), path)
                self._begin(path, values, which, row, last)
                self.counts += np.bincount(which, minlength=len(self.counts))
                self._compare(values, which, np.arange(row, row + len(batch)) - self.starts[which])
                row, last = row + len(batch), int(which[-1]) if len(which) else last

    def _begin(self, path: Path, values: dict[str, np.ndarray], which: np.ndarray, row: int, last: int) -> None:
        """Note the episodes that begin among the rows `which`, the first of which is row `row` of the file."""
        for first in np.flatnonzero(np.diff(which, prepend=last)):
            place = int(which[first])
            if self.starts[place] >= 0:
                raise UserError(f"{path}: the rows of episode {self._indices[place]} lie apart; sort them by index.")
            self.starts[place] = row + first
            self.tasks[place] = values["task_index"][first] if "task_index" in values else 0

    def _compare(self, values: dict[str, np.ndarray], which: np.ndarray, step: np.ndarray) -> None:
        expected = {
            "frame_index": step,
            "episode_index": which,
            "index": self._offsets[which] + step,
            "task_index": self.tasks[which],
        }
        for name, found in values.items():
            if name == "timestamp":
                time = (step / self._fps).astype(np.float32)
                regular = bool(np.all(np.abs(found.astype(np.float32) - time) <= np.spacing(time)))
            else:
                regular = np.array_equal(found, expected[name])
            if not regular:
                self.irregular[name] = None


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
