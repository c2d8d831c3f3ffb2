"""Writing the folder meta/ of a LeRobot data set, version 3.0: info.json, tasks, episodes and statistics."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from policy_accel.data.formats.lerobot.files import CHUNKS_SIZE, DATA_BYTES, VIDEO_BYTES
from policy_accel.data.formats.lerobot.layout import (
    CAMERAS,
    DATA_PATH,
    EPISODES_PATH,
    INFO,
    OWN,
    STATISTICS,
    TASKS_TABLE,
    VIDEO_PATH,
    Column,
)
from policy_accel.data.formats.lerobot.statistics import Statistics, merge

_EPISODES_A_GROUP = 100


class EpisodeTable:
    """The table of episodes, written a group of rows at a time.

    Args:
        root: the folder of the data set.

    Attributes:
        statistics: of all episodes so far.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / EPISODES_PATH.format(chunk_index=0, file_index=0)
        self._path.parent.mkdir(parents=True)
        self._rows: list[dict[str, Any]] = []
        self._table: pq.ParquetWriter | None = None
        self.statistics: Statistics = {}

    def add(self, row: dict[str, Any], statistics: Statistics) -> None:
        """Append an episode: LeRobot's columns in their order, and the statistics of its features."""
        flat = {f"stats/{name}/{level}": v.tolist() for name, of in statistics.items() for level, v in of.items()}
        self._rows.append(row | flat | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        self.statistics = merge(self.statistics, statistics)
        if len(self._rows) == _EPISODES_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            table = pa.Table.from_pylist(self._rows, None if self._table is None else self._table.schema)
            if self._table is None:
                self._table = pq.ParquetWriter(self._path, table.schema, compression="snappy", use_dictionary=True)
            self._table.write_table(table)
            self._rows.clear()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        if self._table is not None:
            self._table.close()


def write_metadata(
    root: Path,
    *,
    episodes: int,
    steps: int,
    tasks: list[str],
    statistics: Statistics,
    fps: float,
    columns: list[Column],
    videos: dict[str, dict[str, Any]],
    recorded: dict[str, Any],
    own: dict[str, Any],
) -> None:
    """Write info.json, the tasks and the statistics of the whole set.

    Args:
        root: the folder of the data set.
        episodes: how many there are.
        steps: of all together.
        tasks: in words.
        statistics: feature -> statistics.
        fps: steps per second.
        columns: features, the derived ones last.
        videos: camera -> what is to be said of its files.
        recorded: what a set that came from LeRobot says: robot_type, splits.
        own: what this package needs to read the set back as it was.
    """
    pq.write_table(_task_table(tasks), root / TASKS_TABLE)
    _write_json(root / STATISTICS, statistics)
    info = {
        "codebase_version": "v3.0",
        "robot_type": recorded.get("robot_type"),
        "total_episodes": episodes,
        "total_frames": steps,
        "total_tasks": len(tasks),
        "chunks_size": CHUNKS_SIZE,
        "data_files_size_in_mb": DATA_BYTES // 2**20,
        "video_files_size_in_mb": VIDEO_BYTES // 2**20,
        "fps": int(fps) if float(fps).is_integer() else fps,
        "splits": _splits(recorded.get("splits"), episodes),
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if videos else None,
        "features": {column.name: _feature(column, videos.get(column.name)) for column in columns},
        OWN: own,
    }
    _write_json(root / INFO, info)


def _write_json(path: Path, value: Any) -> None:
    """Write JSON as LeRobot does: four spaces, letters as they are."""
    text = json.dumps(value, indent=4, ensure_ascii=False, default=np.ndarray.tolist)
    path.write_text(text, encoding="utf-8")


def _task_table(tasks: list[str]) -> pa.Table:
    """The tasks as pandas stores a table whose index are the words: columns `task_index` and `task`."""
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
    return pa.table([pa.array(range(len(tasks)), pa.int64()), pa.array(tasks, pa.string())], schema=schema)


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
