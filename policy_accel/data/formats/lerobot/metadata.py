"""Writing the tables of the folder meta/ of a LeRobot data set, version 3.0."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from policy_accel.data.formats.lerobot.layout import EPISODES_PATH
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


def write_json(path: Path, value: Any) -> None:
    """Write JSON as LeRobot does: four spaces, letters as they are."""
    text = json.dumps(value, indent=4, ensure_ascii=False, default=np.ndarray.tolist)
    path.write_text(text, encoding="utf-8")


def write_tasks(path: Path, tasks: list[str]) -> None:
    """Write the tasks as pandas stores a table whose index are the words: columns `task_index` and `task`."""
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
    pq.write_table(pa.table([list(range(len(tasks))), tasks], schema=schema), path)


def splits(recorded: Any, episodes: int) -> dict[str, str]:
    """The recorded splits when they still fit the number of episodes, else one."""
    if isinstance(recorded, dict) and recorded:
        found = [re.fullmatch(r"(\d+):(\d+)", str(span)) for span in recorded.values()]
        if all(found) and max(int(span[2]) for span in found if span) == episodes:
            return recorded
    return {"train": f"0:{episodes}"}
