"""A LeRobot data set behind the interface of all formats: parquet tables of numbers, pictures and episodes.

Columns are those of Hugging Face `datasets`: a number is a value, a vector a list, more axes nested lists (extension
types Array2D to Array5D), a picture a struct of encoded bytes and a path.
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from policy_accel.data.formats.base import EpisodeReader, Feature, decoding
from policy_accel.data.formats.lerobot import layout
from policy_accel.data.formats.lerobot.layout import DERIVED, EPISODES, TASKS, Column, Episode, entry, json_object
from policy_accel.data.formats.lerobot.video import Camera
from policy_accel.errors import UserError
from policy_accel.files import open_regular
from policy_accel.memory import check_fits


class LeRobotReader(EpisodeReader):
    """A LeRobot data set of version 2.0, 2.1 or 3.0 as an `EpisodeReader`.

    The columns that follow from the order of the steps are left out when they are what they must be. Metadata hold
    `fps` and, under "lerobot", what writing the set again needs; an episode's hold its "task" (or "tasks") and as
    "filters" the splits of info.json that it belongs to; those of a set that this package wrote are what they were.
    Episodes are numbered as they lie, without the gaps that LeRobot's episode_index may have.

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
        self._rising = [name for name in ("frame_index", "timestamp", "index") if name not in known]
        cameras = [name for name, column in columns.items() if column.dtype == "video"]
        self._episodes, self._tasks = _read_episodes(root, info, cameras), _read_tasks(root)
        self.episode_ends = np.cumsum([episode.length for episode in self._episodes], dtype=np.int64)
        self._irregular: set[str] = set()  # derived columns that are not what they must be
        files: dict[Path, list[int]] = {}
        for place, episode in enumerate(self._episodes):
            files.setdefault(episode.data, []).append(place)
        for data, places in files.items():
            try:
                self._find_rows(data, places)
            except UserError as error:
                self._add_faults(dict.fromkeys(places, str(error)))
        counts = {"total_episodes": len(self._episodes), "total_frames": int(self.episode_ends[-1])}
        for name, count in counts.items():
            if (said := info.get(name, count)) != count:
                self.remarks.append(f"{name} is {str(said)[:40]} in info.json; the table of episodes has {count}.")
        shown: dict[str, Column] = {}
        for name, column in columns.items():
            if name not in DERIVED or name in self._irregular:
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
                self._lines = [*file, *[b""] * len(self._episodes)]
        self._table = lru_cache(2)(lambda path, names: _read_table(path, names)[0])
        self._cameras: dict[str, Camera] = {}

    def _find_rows(self, path: Path, places: list[int]) -> None:
        """Find the rows of the episodes of a file, and whether the derived columns are what they must be.

        That is of step t of the episode at place p: frame_index t, timestamp t / fps (to the last bit of float32),
        episode_index p, index the number of steps before, task_index the same in the whole episode.
        """
        newer = self._info["codebase_version"] == "v3.0"
        table, schema = _read_table(path, ["episode_index"] if newer else [], list(DERIVED))
        stored, number = {one.name: _stored_dtype(one.type) for one in schema}, Feature((), np.dtype(np.float64))
        found = {name: _to_array(table[name], Column(name, "", number, None), path) for name in table.column_names}
        # In v2.x an episode has a file of its own.
        owners = found["episode_index"] if newer else np.full(len(table), self._episodes[places[0]].index)
        counted = zip(*np.unique(owners, return_index=True, return_counts=True), strict=True)
        runs = {owner: (int(first), int(count)) for owner, first, count in counted}
        for place in places:
            episode = self._episodes[place]
            episode.stored = stored
            episode.first, count = runs.pop(episode.index, (0, 0))
            rows, steps = slice(episode.first, episode.first + count), np.arange(episode.length)
            part = {name: values[rows] for name, values in found.items()}
            drops = {name: part[name][1:] < part[name][:-1] for name in self._rising if name in part}
            back = [f"{name} falls after its step {np.argmax(drop)}" for name, drop in drops.items() if drop.any()]
            of = f"episode {episode.index}"
            fault = f"time runs backwards in {of}: {back[0]}" if back else ""
            if np.any(owners[rows] != episode.index):
                fault = f"has other rows between those of {of}"
            if count != episode.length:
                fault = f"holds {count} steps of {of}, and the table of episodes says {episode.length}"
            if fault:
                fault += "; correct the rows or the table of episodes, or leave the episode out."
                self._add_faults({place: f"{path}: {fault}"})
                continue
            episode.task = int(part.get("task_index", [-1])[0])
            times = (steps / float(self._info["fps"])).astype(np.float32)
            expected = {"timestamp": times, "frame_index": steps, "index": self.first_row(place) + steps}
            for name, values in part.items():
                off = np.abs(values - expected.get(name, place if name == "episode_index" else episode.task))
                if not np.all(off <= (np.spacing(times) if name == "timestamp" else 0)):
                    self._irregular.add(name)
        if runs and not any("no table names" in remark for remark in self.remarks):
            self.remarks.append(f"{path.relative_to(self._root)} has rows of episodes that no table names; left out.")

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
        facts["tasks"] = self._tasks
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
            return json_object(self._lines[episode], path, f"line {episode + 1}") if self._lines else {}
        row = self._episodes[episode]
        tasks = row.tasks or self._tasks[max(row.task, 0) : row.task + 1]
        one = len(tasks) == 1 and "task_index" not in self._irregular
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
                camera = self._cameras[column.name] = Camera(column, self._episodes, self._info)
                self._add_faults(camera.faults)
                self.remarks += [remark.replace(f"{self._root}/", "") for remark in camera.remarks]

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
                found[key] = _to_array(table[column.name], column, row.data)
            else:
                found[key] = self._cameras[column.name].read(episode, start, stop)
        return found


def _fits(stored: dict[str, str], column: Column) -> bool:
    """Whether a file with these columns has this one; one that could not be opened has a fault already."""
    kind = stored.get(column.name, "")
    if not stored or not kind or "image" in (kind, column.dtype):
        return not stored or kind == column.dtype
    return np.can_cast(kind, column.feature.dtype, "safe")


def _read_episodes(root: Path, info: dict[str, Any], cameras: Sequence[str]) -> list[Episode]:
    """The episodes in order of their index; where their rows begin and what is stored is not looked at."""
    needed = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    fields = ("chunk_index", "file_index", "from_timestamp")
    wanted = ["tasks", *(f"videos/{camera}/{name}" for camera in cameras for name in fields)]
    paths = sorted((root / EPISODES).glob("*/*.parquet"))
    rows = [row for path in paths for row in _read_table(path, needed, wanted)[0].to_pylist()]
    if info["codebase_version"] != "v3.0":
        start = {f"videos/{camera}/from_timestamp": 0.0 for camera in cameras}
        rows = [row | start for row in _lines(root / f"{EPISODES}.jsonl")]
    episodes = sorted((_episode(root, info, row, cameras) for row in rows), key=lambda episode: episode.index)
    if len({episode.index for episode in episodes}) < len(episodes) or not episodes:
        said = "an episode twice; remove one" if episodes else "no episode; download the set again, or record some"
        raise UserError(f"{root / EPISODES}: the table names {said}.")
    return episodes


def _episode(root: Path, info: dict[str, Any], row: dict[str, Any], cameras: Sequence[str]) -> Episode:
    index, length, tasks, videos = row.get("episode_index"), row.get("length"), row.get("tasks") or [], {}
    if type(index) is not int or type(length) is not int or not (0 <= index < 2**40 and 0 < length < 2**40):
        said = f"an episode has episode_index {str(index)[:40]} and length {str(length)[:40]} in the table"
        raise UserError(f"{root / EPISODES}: {said}; correct or remove that row.")

    def path(template: str, place: str) -> Path:
        numbers = {"episode_index": index, "episode_chunk": index // info["chunks_size"]}
        numbers |= {name: row.get(f"{place}/{name}") for name in ("chunk_index", "file_index")}
        text = info[template].replace("{video_key}", place.removeprefix("videos/"))
        text = re.sub(r"\{(\w+)(?::0?(\d{1,2})d)?\}", lambda found: f"{numbers[found[1]]:0{found[2] or 1}d}", text)
        if Path(text).is_absolute() or ".." in Path(text).parts:
            raise ValueError(f"{text} leads out of the folder")
        return root / text

    try:
        data = path("data_path", "data")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        said = f"data_path of info.json does not tell the file of episode {index} ({error}); correct it"
        raise UserError(f"{root}: {said}, or the table of episodes.") from error
    for camera in cameras:
        with suppress(KeyError, ValueError, TypeError, AttributeError):  # the camera has no video of this episode
            start = float(row[f"videos/{camera}/from_timestamp"])
            if math.isfinite(start):
                videos[camera] = path("video_path", f"videos/{camera}"), start
    tasks = list(map(str, tasks if isinstance(tasks, list) else [tasks]))
    return Episode(index, length, tasks, data, videos, {})


def _read_tasks(root: Path) -> list[str]:
    """The tasks in words by task_index, "" for a number without words; [] without a file of them."""
    old, new = root / f"{TASKS}.jsonl", root / f"{TASKS}.parquet"
    # The words are the index of a pandas table; early writers of v3.0 left it without a name.
    unnamed = "__index_level_0__"
    rows = _read_table(new, ["task_index"], ["task", unnamed])[0].to_pylist() if new.exists() else []
    rows += _lines(old) if old.exists() else []
    pairs = [(row.get("task_index"), str(row.get("task", row.get(unnamed, "")))) for row in rows]
    tasks = {number: words for number, words in pairs if type(number) is int and 0 <= number < 2**20}
    return [tasks.get(number, "") for number in range(max(tasks, default=-1) + 1)]


def _lines(path: Path) -> list[dict[str, Any]]:
    with open_regular(path) as file:
        return [json_object(line, path, f"line {number}") for number, line in enumerate(file, 1) if line.strip()]


def _read_table(path: Path, needed: Sequence[str], wanted: Sequence[str] = ()) -> tuple[pa.Table, pa.Schema]:
    """The columns of a parquet file that are needed, and of the wanted those that it has; and what it holds in all."""
    open_regular(path).close()
    with decoding(path, "the table"), pq.ParquetFile(path) as file:
        names, rows = file.schema_arrow.names, file.metadata.num_rows
        if missing := [name for name in needed if name not in names]:
            raise UserError(f"{path}: has no column '{missing[0]}', but {', '.join(names)[:300]}; copy the set again.")
        present = [*needed, *(name for name in wanted if name in names and name not in needed)]
        check_fits(8 * rows * len(present), f"{path}: its {rows} rows", stored=path.stat().st_size)
        return file.read(columns=present).select(present), file.schema_arrow  # "a" would read "a.b" too


def _stored_dtype(kind: pa.DataType) -> str:
    """What a column of this type holds: a NumPy dtype, "image" (bytes and path), or "" for anything else."""
    while isinstance(kind, pa.BaseExtensionType | pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind.value_type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return "image"
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return str(np.dtype(kind.to_pandas_dtype())) if numeric else ""


def _to_array(cells: pa.ChunkedArray, column: Column, path: Path) -> np.ndarray:
    """Some rows of a column as [rows, *shape]; rows of another shape or type raise UserError."""
    with decoding(path, f"column '{column.name}'"):
        return (_pictures if column.dtype == "image" else _numbers)(cells, column, f"{path}: column '{column.name}'")


def _numbers(cells: pa.ChunkedArray, column: Column, at: str) -> np.ndarray:
    values, shape, even = cells.combine_chunks(), column.feature.shape, True
    while isinstance(values, pa.ExtensionArray) or pa.types.is_nested(values.type):
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        else:
            even &= len(pc.unique(pc.list_value_length(values))) <= 1
            values = pc.list_flatten(values)
    if not even or values.null_count or len(values) != len(cells) * math.prod(shape):
        wrong = f"has empty or ragged rows, or others than info.json's shape {list(shape)}"
        raise UserError(f"{at} {wrong}; correct the shape, or leave the episode out.")
    array: np.ndarray = values.to_numpy(zero_copy_only=False)
    return array.astype(column.feature.dtype, casting="safe", copy=False).reshape(len(cells), *shape)


def _pictures(cells: pa.ChunkedArray, column: Column, at: str) -> np.ndarray:
    height, width, channels = column.feature.shape
    check_fits(len(cells) * height * width * channels, f"{at} of {height}x{width} pixels")
    result = np.empty((len(cells), height, width, channels), np.uint8)
    for row, content in enumerate(pc.struct_field(cells, "bytes").to_pylist()):
        if content is None:
            raise UserError(f"{at} holds paths; embed the pictures in the table as `LeRobotDataset` does.")
        with Image.open(io.BytesIO(content)) as image:
            if image.size != (width, height):
                has = f"a picture of {image.height}x{image.width} pixels, and info.json says {height}x{width}"
                raise UserError(f"{at} has {has}; correct the shape there.")
            result[row] = np.asarray(image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])).reshape(result.shape[1:])
    return result
