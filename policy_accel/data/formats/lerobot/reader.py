"""A LeRobot data set behind the interface of all formats."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.formats.base import EpisodeReader, Feature
from policy_accel.data.formats.lerobot import layout
from policy_accel.data.formats.lerobot.layout import DERIVED, Column, entry
from policy_accel.data.formats.lerobot.tables import Catalogue, read_table, to_array
from policy_accel.data.formats.lerobot.video import Camera, require_av
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
        self._info = info = layout.read_info(root)
        super().__init__(root)
        self.layout = f"LeRobot {info['codebase_version']}"
        columns, left_out = layout.read_columns(info)
        own = entry(info, layout.OWN)
        known = {name: key for name, key in entry(own, "keys").items() if isinstance(key, str)}
        # A key `timestamp` of a set that came from elsewhere may hold anything.
        rising = [name for name in ("frame_index", "timestamp", "index") if name not in known]
        cameras = [name for name, column in columns.items() if column.dtype == "video"]
        self._tables = tables = Catalogue(root, info, cameras, rising)
        self._episodes, self.episode_ends = tables.episodes, tables.ends
        self._add_faults(tables.faults)
        for stranger in tables.strangers[:1]:
            self.remarks.append(f"{stranger.relative_to(root)} has rows of episodes that no table names; left out.")
        counts = {"total_episodes": len(tables.episodes), "total_frames": int(tables.ends[-1])}
        for name, count in counts.items():
            if (said := info.get(name, count)) != count:
                self.remarks.append(f"{name} is {str(said)[:40]} in info.json; the table of episodes has {count}.")
        shown: dict[str, Column] = {}
        for name, column in columns.items():
            if name not in DERIVED or name in tables.irregular:
                try:
                    shown[name] = self._with_videos(column) if column.dtype == "video" else self._as_stored(column)
                except ValueError as reason:
                    left_out[name] = str(reason)
        keys = layout.to_keys([*shown, *left_out], known)
        self._columns = {keys[name]: column for name, column in shown.items()}
        self.features = {key: column.feature for key, column in self._columns.items()}
        self.left_out = {keys[name]: f"{why}." for name, why in left_out.items()}
        splits = {name: re.fullmatch(r"(\d{1,12}):(\d{1,12})", str(v)) for name, v in entry(info, "splits").items()}
        self._splits = {name: range(int(span[1]), int(span[2])) for name, span in splits.items() if span}
        if (own.get("episodes"), own.get("steps")) != tuple(counts.values()):
            own = {}  # another program has added or removed episodes since
        self._own = isinstance(own.get("metadata"), dict)
        self.metadata = own["metadata"] if self._own else self._recorded(sorted(left_out))
        self._lines: list[bytes] = []  # facts about each episode
        if own.get("lines"):
            with open_regular(root / layout.OWN_LINES) as file:
                self._lines = file.readlines()
            if len(self._lines) != len(tables.episodes):
                said = f"has {len(self._lines)} lines for {len(tables.episodes)} episodes; copy the set again."
                raise UserError(f"{root / layout.OWN_LINES}: {said}")
        self._table = lru_cache(2)(lambda path, names: read_table(path, names)[0])
        self._cameras: dict[str, Camera] = {}

    def _with_videos(self, camera: Column) -> Column:
        """The camera; raises ValueError when not one of its videos is there."""
        paths = {episode.videos[camera.name][0] for episode in self._episodes if camera.name in episode.videos}
        if not any(path.exists() for path in paths):
            first = f", the first {min(paths).relative_to(self._root)}" if paths else ""
            raise ValueError(f"its videos are missing, {len(paths)} in all{first}")
        return camera

    def _as_stored(self, column: Column) -> Column:
        """The column with the type that most episodes have, whatever info.json says; raises ValueError for none."""
        found = Counter(episode.stored.get(column.name, "") for episode in self._episodes if episode.stored)
        usable = [kind for kind, _ in found.most_common() if kind and (kind == "image") == (column.dtype == "image")]
        if found and not usable:
            raise ValueError("the tables have no such column, or another kind of values in it")
        if not usable or usable[0] == column.dtype:
            return column
        said = f"is {usable[0]} in the tables and {column.dtype} in info.json; read as the first."
        self.remarks.append(f"{column.name} {said}")
        return column._replace(dtype=usable[0], feature=Feature(column.feature.shape, np.dtype(usable[0])))

    def _recorded(self, left_out: list[str]) -> dict[str, Any]:
        """What writing the set again needs."""
        facts = {name: self._info.get(name, default) for name, default in (("robot_type", None), ("splits", {}))}
        facts["tasks"] = self._tables.tasks
        facts["features"] = {
            key: {"name": column.name, "dtype": column.dtype, "names": column.axes}
            for key, column in self._columns.items()
        }
        return {"fps": self._info["fps"], "lerobot": facts | ({"left_out": left_out} if left_out else {})}

    def close(self) -> None:
        """See `EpisodeReader`."""
        self._table.cache_clear()
        for camera in self._cameras.values():
            camera.close()

    def own_name(self, key: str) -> str:
        """See `EpisodeReader`."""
        return self._columns[key].name

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """See `EpisodeReader`."""
        if self._own:
            path = self._root / layout.OWN_LINES
            return layout.json_object(self._lines[episode], path, f"line {episode + 1}") if self._lines else {}
        row = self._episodes[episode]
        tasks = row.tasks or self._tables.tasks[max(row.task, 0) : row.task + 1]
        one = len(tasks) == 1 and "task_index" not in self._tables.irregular
        facts: dict[str, Any] = {"task": tasks[0]} if one else {"tasks": tasks}
        # A split counts the episodes as they lie when the last one ends at their number, else LeRobot's episode_index.
        by_place = max((span.stop for span in self._splits.values()), default=0) == len(self._episodes)
        filters = [name for name, span in self._splits.items() if (episode if by_place else row.index) in span]
        return facts | ({"filters": filters} if filters else {})

    def ask_for(self, keys: Sequence[str]) -> None:
        """See `EpisodeReader`."""
        super().ask_for(keys)
        for column in (self._columns[key] for key in keys):
            if column.dtype != "video":
                lacking = f"has no column '{column.name}', or of another type than the others; leave the episode out."
                misfits = [place for place, episode in enumerate(self._episodes) if not _fits(episode.stored, column)]
                self._add_faults({place: f"{self._episodes[place].data}: {lacking}" for place in misfits})
            elif column.name not in self._cameras:
                require_av(f"{self.source}: reading the videos of {column.name}")
                camera = self._cameras[column.name] = Camera(column, self._episodes, self._info)
                self._add_faults(camera.faults)
                self.remarks += camera.remarks

    def _add_faults(self, faults: dict[int, str]) -> None:
        for place, sentence in faults.items():
            index = self._episodes[place].index
            name = f"episode {place}" + (f" (episode_index {index})" if index != place else "")
            self.faults.setdefault(place, f"{name}: {sentence.removeprefix(f'{self._root}/')}")

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        columns, row = [self._columns[key] for key in keys], self._episodes[episode]
        if any(column.dtype == "video" and column.name not in self._cameras for column in columns):
            self.ask_for(keys)
            if episode in self.faults:
                raise UserError(f"{self.source}: {self.faults[episode]}")
        in_table, found = tuple(column.name for column in columns if column.dtype != "video"), {}
        table = self._table(row.data, in_table).slice(row.first + start, stop - start) if in_table else None
        for key, column in zip(keys, columns, strict=True):
            if table is not None and column.dtype != "video":
                found[key] = to_array(table[column.name], column, row.data)
            else:
                found[key] = self._cameras[column.name].read(episode, start, stop)
        return found


def _fits(stored: dict[str, str], column: Column) -> bool:
    """Whether a file with these columns has this one; one that could not be opened has a fault already."""
    kind = stored.get(column.name, "")
    if not stored or not kind or "image" in (kind, column.dtype):
        return not stored or kind == column.dtype
    return np.can_cast(kind, column.feature.dtype, "safe")
