"""A LeRobot data set behind the interface of all formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.formats.base import EpisodeReader
from policy_accel.data.formats.lerobot.catalogue import EpisodeRow, read_catalogue, scan
from policy_accel.data.formats.lerobot.layout import DERIVED, OWN, OWN_LINES, Column, read_columns, read_info
from policy_accel.data.formats.lerobot.names import to_keys
from policy_accel.data.formats.lerobot.tables import RowCursor
from policy_accel.data.formats.lerobot.video import FrameCursor
from policy_accel.errors import UserError
from policy_accel.files import explained


class LeRobotReader(EpisodeReader):
    """A LeRobot data set of version 2.1 or 3.0 as an `EpisodeReader`.

    `observation.<key>` is `<key>`, `next.reward`, `next.done` and `next.success` are `reward`, `done` and `success`.
    The columns that follow from the order of the steps are left out when they are what they must be. Metadata hold
    `fps` and, under "lerobot", what writing the set again needs; an episode's hold its "task" (or "tasks"). Sets that
    this package wrote come back with the metadata that they went in with. Text columns and depth maps are not read;
    they are listed under "left_out".

    Args:
        path: the folder that holds meta/, data/ and videos/.

    Raises:
        UserError: no such data set; another version (with the way to convert it); tables or columns that are missing
            or damaged. Videos are looked at when their frames are read.
    """

    format = "lerobot"

    def __init__(self, path: Path | str) -> None:
        root = Path(path)
        info = read_info(root)
        super().__init__(root)
        self.layout = f"LeRobot {info['codebase_version']}"
        self._fps = float(info["fps"])
        columns, left_out = read_columns(info, root / "meta/info.json")
        self._cameras = [name for name, column in columns.items() if column.dtype == "video"]
        self._episodes, self._tasks = read_catalogue(root, info, self._cameras)
        self._scan = scan(self._episodes, info)
        own = self._own_facts(info)
        shown = {name: columns[name] for name in columns if name not in DERIVED or name in self._scan.irregular}
        keys = to_keys(shown, own.get("keys", {}))
        order = {key: place for place, key in enumerate(own.get("order", ()))}
        pairs = sorted(shown.items(), key=lambda item: order.get(keys[item[0]], len(order)))
        self._columns: dict[str, Column] = {keys[name]: column for name, column in pairs}
        self.features = {key: column.feature for key, column in self._columns.items()}
        self.episode_ends = np.cumsum([episode.length for episode in self._episodes], dtype=np.int64)
        self.metadata: dict[str, Any] = own["metadata"] if "metadata" in own else self._recorded(info, left_out)
        self._lines = _line_offsets(root / OWN_LINES, len(self._episodes)) if own.get("lines") else None
        self._lines_path = root / OWN_LINES
        self._plain = "metadata" in own
        self._rows = RowCursor()
        self._frames: dict[str, FrameCursor] = {}
        self._file_lengths: dict[tuple[str, Path], int] = {}
        for episode in self._episodes:
            for camera, place in episode.videos.items():
                at = (camera, place.path)
                self._file_lengths[at] = self._file_lengths.get(at, 0) + episode.length

    def close(self) -> None:
        """See `EpisodeReader`."""
        self._rows.close()
        while self._frames:
            self._frames.popitem()[1].close()

    def _own_facts(self, info: dict[str, Any]) -> dict[str, Any]:
        own = info.get(OWN)
        if not isinstance(own, dict):
            return {}
        # Another program may have added or removed episodes since.
        now = {"episodes": len(self._episodes), "steps": sum(episode.length for episode in self._episodes)}
        stale = any(own.get(name) != count for name, count in now.items())
        return {name: own[name] for name in ("keys", "order") if name in own} if stale else own

    def _recorded(self, info: dict[str, Any], left_out: list[str]) -> dict[str, Any]:
        facts = {
            "robot_type": info.get("robot_type"),
            "splits": info.get("splits", {}),
            "tasks": self._tasks,
            "features": {
                key: {"name": column.name, "dtype": column.dtype, "names": column.names}
                for key, column in self._columns.items()
            },
        }
        return {"fps": info["fps"], "lerobot": facts | ({"left_out": left_out} if left_out else {})}

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """See `EpisodeReader`."""
        if self._lines is not None:
            with explained(self._lines_path, "read"), self._lines_path.open("rb") as file:
                file.seek(self._lines[episode])
                line = file.readline()
            try:
                facts: dict[str, Any] = json.loads(line)
                return facts
            except ValueError as error:
                raise UserError(
                    f"{self._lines_path}: line {episode + 1} is not JSON; copy the data set again."
                ) from error
        if self._plain:
            return {}
        row, number = self._episodes[episode], int(self._scan.tasks[episode])
        tasks = row.tasks or tuple(self._tasks[number : number + 1])
        one = len(tasks) == 1 and "task_index" not in self._scan.irregular
        return {"task": tasks[0]} if one else {"tasks": list(tasks)}

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        row, first = self._episodes[episode], int(self._scan.starts[episode])
        columns = [self._columns[key] for key in keys]
        in_table = [column for column in columns if column.dtype != "video"]
        found = self._rows.read(row.data, in_table, first + start, first + stop) if in_table else {}
        for column in columns:
            if column.dtype == "video":
                found[column.name] = self._read_frames(row, column, start, stop)
        return {key: found[self._columns[key].name] for key in keys}

    def _read_frames(self, row: EpisodeRow, column: Column, begin: int, end: int) -> np.ndarray:
        place = row.videos[column.name]
        cursor = self._frames.setdefault(column.name, FrameCursor())
        cursor.open(place.path, self._file_lengths[column.name, place.path])
        return cursor.read(place.start, begin, end, column.feature.shape)


def _line_offsets(path: Path, count: int) -> list[int]:
    offsets, position = [], 0
    with explained(path, "read"), path.open("rb") as file:
        for line in file:
            offsets.append(position)
            position += len(line)
    if len(offsets) != count:
        raise UserError(f"{path}: has {len(offsets)} lines for {count} episodes; copy the data set again.")
    return offsets
