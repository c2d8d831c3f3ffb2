"""The folder meta/ of a LeRobot data set: info.json, tasks, episodes and statistics, in either version's form."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from policy_accel.data.formats.lerobot.layout import (
    CAMERAS,
    DATA_PATHS,
    EPISODES_LINES,
    EPISODES_PATH,
    INFO,
    OWN,
    OWN_LINES,
    STATISTICS,
    STATISTICS_LINES,
    TASKS_LINES,
    TASKS_TABLE,
    V21,
    VIDEO_PATHS,
    Column,
)
from policy_accel.data.formats.lerobot.statistics import Statistics, merge

CHUNKS_SIZE = 1000
_EPISODES_A_GROUP = 100


class MetadataWriter:
    """Writes the tables of meta/ episode by episode.

    Args:
        root: the folder of the data set.
        version: "v2.1" or "v3.0".
        keep_lines: whether every episode has facts of its own.
    """

    def __init__(self, root: Path, version: str, *, keep_lines: bool) -> None:
        (root / "meta").mkdir(parents=True)
        self._root, self._version = root, version
        self._episodes_added = self._steps = self._tasks = 0
        self._statistics: Statistics = {}
        self._rows: list[dict[str, Any]] = []
        self._table: pq.ParquetWriter | None = None
        lines = (TASKS_LINES, EPISODES_LINES, STATISTICS_LINES) if version == V21 else ()
        lines = (*lines, OWN_LINES) if keep_lines else lines
        self._files = {name: (root / name).open("w", encoding="utf-8") for name in lines}

    def _line(self, name: str, value: dict[str, Any]) -> None:
        self._files[name].write(json.dumps(value, ensure_ascii=False, default=np.ndarray.tolist) + "\n")

    def add(
        self,
        episode: int,
        length: int,
        tasks: list[str],
        places: dict[str, Any],
        statistics: Statistics,
        facts: dict[str, Any],
    ) -> None:
        """Write down one episode.

        Args:
            episode: its number.
            length: its steps.
            tasks: in words.
            places: v3.0: in which files and where it lies, in LeRobot's columns and their order.
            statistics: of its features.
            facts: about it that LeRobot has no place for.
        """
        self._episodes_added += 1
        self._steps += length
        row = {"episode_index": episode, "tasks": tasks, "length": length}
        if OWN_LINES in self._files:
            self._line(OWN_LINES, facts)
        if self._version == V21:
            self._line(EPISODES_LINES, row)
            self._line(STATISTICS_LINES, {"episode_index": episode, "stats": statistics})
            return
        flat = {f"stats/{name}/{level}": v.tolist() for name, of in statistics.items() for level, v in of.items()}
        self._rows.append(row | places | flat | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        self._statistics = merge(self._statistics, statistics)
        if len(self._rows) == _EPISODES_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        table = pa.Table.from_pylist(self._rows, None if self._table is None else self._table.schema)
        if self._table is None:
            path = self._root / EPISODES_PATH.format(chunk_index=0, file_index=0)
            path.parent.mkdir(parents=True)
            self._table = pq.ParquetWriter(path, table.schema, compression="snappy", use_dictionary=True)
        self._table.write_table(table)
        self._rows.clear()

    def finish(self, tasks: list[str]) -> None:
        """Write what is left, the tasks and the statistics of the whole set."""
        self._tasks = len(tasks)
        if self._version == V21:
            for number, task in enumerate(tasks):
                self._line(TASKS_LINES, {"task_index": number, "task": task})
        else:
            self._flush()
            pq.write_table(_task_table(tasks), self._root / TASKS_TABLE)
            _write_json(self._root / STATISTICS, self._statistics)

    def write_info(
        self,
        *,
        fps: float,
        columns: list[Column],
        videos: dict[str, dict[str, Any]],
        recorded: dict[str, Any],
        own: dict[str, Any],
    ) -> None:
        """Write info.json for what was added.

        Args:
            fps: frames per second.
            columns: features, the derived ones last.
            videos: camera -> what is to be said of its files.
            recorded: what a set that came from LeRobot says: robot_type, splits.
            own: what this package needs to read the set back as it was.
        """
        info = {
            "codebase_version": self._version,
            "robot_type": recorded.get("robot_type"),
            "total_episodes": self._episodes_added,
            "total_frames": self._steps,
            "total_tasks": self._tasks,
            "chunks_size": CHUNKS_SIZE,
            "fps": int(fps) if float(fps).is_integer() else fps,
            "splits": _splits(recorded.get("splits"), self._episodes_added),
            "data_path": DATA_PATHS[self._version],
            "video_path": VIDEO_PATHS[self._version] if videos else None,
            "features": {column.name: _feature(column, videos.get(column.name)) for column in columns},
        }
        if self._version == V21:
            info["total_videos"] = self._episodes_added * len(videos)
            info["total_chunks"] = -(-self._episodes_added // CHUNKS_SIZE)
        else:
            info |= {"data_files_size_in_mb": 100, "video_files_size_in_mb": 200}
        _write_json(self._root / INFO, info | {OWN: own})

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        if self._table is not None:
            self._table.close()


def _write_json(path: Path, value: Any) -> None:
    """Write JSON as LeRobot does: four spaces, letters as they are."""
    text = json.dumps(value, indent=4, ensure_ascii=False, default=np.ndarray.tolist)
    path.write_text(text, encoding="utf-8")


def _task_table(tasks: list[str]) -> pa.Table:
    """The tasks of v3.0 as pandas stores a table whose index are the words: columns `task_index` and `task`."""
    words = {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    number = {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"}
    header = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object"}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [header | {"metadata": {"encoding": "UTF-8"}}],
        "columns": [number | {"metadata": None}, words],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.3",
    }
    schema = pa.schema([("task_index", pa.int64()), ("task", pa.string())], metadata={"pandas": json.dumps(pandas)})
    return pa.table([pa.array(np.arange(len(tasks))), pa.array(tasks, pa.string())], schema=schema)


def _feature(column: Column, video: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "dtype": column.dtype,
        "shape": list(column.feature.shape) or [1],
        "names": ["height", "width", "channels"] if column.dtype in CAMERAS else column.names,
        **({} if video is None else {"info": video}),
    }


def _splits(recorded: Any, episodes: int) -> dict[str, str]:
    """The recorded splits when they still fit the number of episodes, else one."""
    if isinstance(recorded, dict) and recorded:
        found = [re.fullmatch(r"(\d+):(\d+)", str(span)) for span in recorded.values()]
        if all(found) and max(int(span[2]) for span in found if span) == episodes:
            return recorded
    return {"train": f"0:{episodes}"}
