"""A LeRobot data set behind the interface of all formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.formats.base import EpisodeReader
from policy_accel.data.formats.lerobot.cameras import Camera
from policy_accel.data.formats.lerobot.catalogue import read_catalogue, split_filters
from policy_accel.data.formats.lerobot.layout import (
    DERIVED,
    OWN_LINES,
    Column,
    json_object,
    own_facts,
    read_columns,
    read_info,
)
from policy_accel.data.formats.lerobot.names import to_keys
from policy_accel.data.formats.lerobot.scan import scan
from policy_accel.data.formats.lerobot.tables import RowCursor, stored_dtype
from policy_accel.data.formats.lerobot.video import require_av
from policy_accel.errors import UserError
from policy_accel.files import open_regular


class LeRobotReader(EpisodeReader):
    """A LeRobot data set of version 2.0, 2.1 or 3.0 as an `EpisodeReader`.

    `observation.<key>` is `<key>`, `next.reward`, `next.done` and `next.success` are `reward`, `done` and `success`.
    The columns that follow from the order of the steps are left out when they are what they must be. Metadata hold
    `fps` and, under "lerobot", what writing the set again needs; an episode's hold its "task" (or "tasks") and as
    "filters" the splits of info.json that it belongs to. Sets that this package wrote come back with the metadata that
    they went in with. Text columns, depth maps and cameras whose videos are all missing are left out.

    Episodes are numbered as they lie, without the gaps that LeRobot's episode_index may have.

    Args:
        path: the folder that holds meta/, data/ and videos/.

    Raises:
        UserError: no such data set; another version (with the way to convert it); tables of episodes that are missing
            or damaged. Data files are looked at here, videos by `ask_for` or when their frames are read.
    """

    format = "lerobot"

    def __init__(self, path: Path | str) -> None:
        self._root = root = Path(path)
        info = read_info(root)
        super().__init__(root)
        self.layout = f"LeRobot {info['codebase_version']}"
        self._fps, self._one_each = float(info["fps"]), info["codebase_version"] != "v3.0"
        columns, left_out = read_columns(info)
        cameras = [name for name, column in columns.items() if column.dtype == "video"]
        self._episodes, self._tasks = read_catalogue(root, info, cameras)
        self.episode_ends = np.cumsum([episode.length for episode in self._episodes], dtype=np.int64)
        own = own_facts(info)
        # A key `timestamp` of a set that came from elsewhere may hold anything.
        rising = [name for name in ("frame_index", "timestamp", "index") if name not in own.get("keys", {})]
        self._scan = scan(self._episodes, self._fps, one_each=self._one_each, rising=rising)
        self._add_faults(self._scan.faults)
        self._lacking: dict[str, set[int]] = {}  # name -> places of the episodes whose file does not have it so
        shown: dict[str, Column] = {}
        for name, column in columns.items():
            if name in DERIVED and name not in self._scan.irregular:
                continue
            try:
                shown[name] = self._with_videos(column) if column.dtype == "video" else self._as_stored(column)
            except ValueError as reason:
                left_out[name] = str(reason)
        # Another program may have added or removed episodes since.
        if (own.get("episodes"), own.get("steps")) != (len(self._episodes), self.episode_ends[-1]):
            own = {"keys": own.get("keys", {})}
        keys = to_keys([*shown, *left_out], own["keys"])
        order = {key: place for place, key in enumerate(own["keys"].values())}
        ordered = sorted(shown, key=lambda name: order.get(keys[name], len(order)))
        self._columns = {keys[name]: shown[name] for name in ordered}
        self.features = {key: column.feature for key, column in self._columns.items()}
        self.left_out = {keys[name]: f"{why}." for name, why in left_out.items()}
        self._remark(info)
        self._filters, odd = split_filters(info.get("splits"), [episode.index for episode in self._episodes])
        if odd:
            self.remarks.append(f"splits of info.json that are no range of episodes are no filters: {', '.join(odd)}.")
        self._plain = "metadata" in own
        self.metadata: dict[str, Any] = own["metadata"] if self._plain else self._recorded(info, sorted(left_out))
        self._lines = _line_offsets(root / OWN_LINES, len(self._episodes)) if own.get("lines") else None
        self._rows = RowCursor()
        self._cameras: dict[str, Camera] = {}

    def close(self) -> None:
        """See `EpisodeReader`."""
        self._rows.close()
        for camera in self._cameras.values():
            camera.close()

    def _with_videos(self, camera: Column) -> Column:
        """The camera; raises ValueError when not one of its videos is there."""
        paths = {episode.videos[camera.name][0] for episode in self._episodes if camera.name in episode.videos}
        if not any(path.exists() for path in paths):
            first = f", the first {min(paths).relative_to(self._root)}" if paths else ""
            raise ValueError(f"its videos are missing, {len(paths)} in all{first}")
        return camera

    def _as_stored(self, column: Column) -> Column:
        """The column with the type that most tables have, whatever info.json says; raises ValueError for none."""
        if not self._scan.types:  # no table can be read
            return column
        types, places = self._scan.types.get(column.name, {}), dict[str, list[int]]()
        for kind, of in types.items():
            places.setdefault(stored_dtype(kind), []).extend(of)
        usable = [dtype for dtype in places if dtype and (dtype == "image") == (column.dtype == "image")]
        if not usable:
            kinds = ", ".join(str(kind)[:60] for kind in types)
            raise ValueError(f"the tables hold {kinds}" if kinds else "the tables have no such column")
        dtype = max(usable, key=lambda dtype: len(places[dtype]))
        fitting = [one for one in usable if one == dtype or np.can_cast(one, dtype, "safe")]
        has = {place for one in fitting for place in places[one]}
        self._lacking[column.name] = set(range(len(self._episodes))) - has
        if dtype == column.dtype:
            return column
        self.remarks.append(
            f"{column.name} is {dtype} in the tables and {column.dtype} in info.json; read as the first."
        )
        return replace(column, dtype=dtype, feature=replace(column.feature, dtype=np.dtype(dtype)))

    def _remark(self, info: dict[str, Any]) -> None:
        counts = {"total_episodes": len(self._episodes), "total_frames": int(self.episode_ends[-1])}
        for name, count in counts.items():
            if info.get(name, count) != count:
                said = str(info[name])[:40]
                self.remarks.append(
                    f"{name} is {said} in info.json, and the table of episodes has {count}, which is taken."
                )
        for path in self._scan.strangers[:1]:
            self.remarks.append(
                f"{path.relative_to(self._root)} has rows of episodes that the table of episodes does not name; they "
                "are not read."
            )

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

    def own_name(self, key: str) -> str:
        """See `EpisodeReader`."""
        return self._columns[key].name

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """See `EpisodeReader`."""
        if self._lines is not None:
            path = self._root / OWN_LINES
            with open_regular(path) as file:
                file.seek(self._lines[episode])
                return json_object(file.readline(), f"{path}: line {episode + 1}")
        if self._plain:
            return {}
        row, number = self._episodes[episode], int(self._scan.tasks[episode])
        tasks = row.tasks or tuple(self._tasks[number : number + 1] if number >= 0 else ())
        one = len(tasks) == 1 and "task_index" not in self._scan.irregular
        facts: dict[str, Any] = {"task": tasks[0]} if one else {"tasks": list(tasks)}
        filters = self._filters[episode]
        return facts | ({"filters": filters} if filters else {})

    def ask_for(self, keys: Sequence[str]) -> None:
        """See `EpisodeReader`."""
        super().ask_for(keys)
        for column in (self._columns[key] for key in keys):
            lacking = f"has no column '{column.name}', or of another type than the others; leave the episode out."
            self._add_faults(
                {place: f"{self._episodes[place].data}: {lacking}" for place in self._lacking.get(column.name, ())}
            )
            if column.dtype == "video" and column.name not in self._cameras:
                require_av(f"{self.source}: reading the videos of {column.name}")
                camera = Camera(self._root, column, self._episodes, self._fps, one_each=self._one_each)
                self._cameras[column.name] = camera
                self._add_faults(camera.faults)
                self.remarks += camera.remarks

    def _add_faults(self, faults: dict[int, str]) -> None:
        for place, sentence in faults.items():
            index = self._episodes[place].index
            name = f"episode {place}" + (f" (episode_index {index})" if index != place else "")
            self.faults.setdefault(place, f"{name}: {sentence.removeprefix(f'{self._root}/')}")

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        columns = [self._columns[key] for key in keys]
        videos = [column.name for column in columns if column.dtype == "video"]
        if not self._cameras.keys() >= set(videos):
            self.ask_for(keys)
            if episode in self.faults:
                raise UserError(f"{self.source}: {self.faults[episode]}")
        row, first = self._episodes[episode], int(self._scan.starts[episode])
        in_table = [column for column in columns if column.dtype != "video"]
        found = self._rows.read(row.data, in_table, first + start, first + stop) if in_table else {}
        found |= {name: self._cameras[name].read(episode, start, stop) for name in videos}
        return {key: found[self._columns[key].name] for key in keys}


def _line_offsets(path: Path, count: int) -> list[int]:
    offsets, position = [], 0
    with open_regular(path) as file:
        for line in file:
            offsets.append(position)
            position += len(line)
    if len(offsets) != count:
        raise UserError(f"{path}: has {len(offsets)} lines for {count} episodes; copy the data set again.")
    return offsets
