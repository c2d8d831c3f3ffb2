"""A LeRobot data set behind the interface of all formats: parquet tables of numbers, pictures and episodes."""

from __future__ import annotations

import io
import math
import re
from collections import defaultdict
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
from policy_accel.data.formats.lerobot.layout import DERIVED, EPISODES, Column, Episode, entry, json_object
from policy_accel.data.formats.recognise import imported
from policy_accel.errors import UserError
from policy_accel.files import open_regular
from policy_accel.memory import check_fits


class LeRobotReader(EpisodeReader):
    """A LeRobot data set of version 2.0, 2.1 or 3.0; UserError for another, and without a sound table of episodes.

    Metadata hold `fps` and, under "lerobot", what writing the set again needs; an episode's hold "task" (or "tasks")
    and as "filters" its splits in info.json; those of a set that this package wrote are what they were. Episodes are
    numbered as they lie, without the gaps that LeRobot's episode_index may have.
    """

    format = "lerobot"

    def __init__(self, path: Path | str) -> None:
        self._root = root = Path(path)
        self._info = info = layout.read_info(root)
        super().__init__(root)
        self.layout = f"LeRobot {info['codebase_version']}"
        own = entry(info, layout.OWN)
        known = {name: key for name, key in entry(own, "keys").items() if isinstance(key, str)}
        self._episodes, self._tasks = _read_episodes(root, info), _read_tasks(root)
        self.episode_ends = np.cumsum([episode.length for episode in self._episodes], dtype=np.int64)
        self._kinds = defaultdict[str, dict[str, list[int]]](dict)  # column -> what tables hold of it -> their episodes
        self._unasked: dict[
            str, dict[int, str]
        ] = {}  # column -> faults that it makes of episodes, once it is asked for
        self._irregular: set[str] = set()  # derived columns that are not what they must be
        # A key `timestamp` of a set that came from elsewhere may hold anything.
        rising = [name for name in ("frame_index", "timestamp", "index") if name not in known]
        files = defaultdict[Path, list[int]](list)
        for place, episode in enumerate(self._episodes):
            files[episode.data].append(place)
        for data, places in files.items():
            try:
                self._find_rows(data, places, rising)
            except UserError as error:
                self._add_faults(dict.fromkeys(places, str(error)))
        counts = {"total_episodes": len(self._episodes), "total_frames": int(self.episode_ends[-1])}
        for name, count in counts.items():
            if (said := info.get(name, count)) != count:
                self.remarks.append(f"{name} is {str(said)[:40]} in info.json; the table of episodes has {count}.")
        shown, left_out = dict[str, Column](), dict[str, str]()
        for name in info["features"]:
            try:
                column = layout.read_column(info, name)
                if name not in DERIVED or name in self._irregular:
                    shown[name] = self._as_stored(column)
            except ValueError as reason:
                left_out[name] = str(reason)
        keys = layout.to_keys([*shown, *left_out], known)
        self._columns = {keys[name]: column for name, column in shown.items()}
        self.features = {key: column.feature for key, column in self._columns.items()}
        self.left_out = {keys[name]: f"{why}." for name, why in left_out.items()}
        self._lines: list[bytes] = []  # our facts about each episode, unless another program has changed the set since
        facts = {key: {"name": of.name, "dtype": of.dtype, "names": of.axes} for key, of in self._columns.items()}
        recorded = {"robot_type": info.get("robot_type"), "splits": info.get("splits", {}), "tasks": self._tasks}
        recorded |= {"features": facts} | ({"left_out": sorted(left_out)} if left_out else {})
        self.metadata = {"fps": info["fps"], "lerobot": recorded}  # what writing the set again needs
        if [own.get("episodes"), own.get("steps")] == [*counts.values()] and isinstance(own.get("metadata"), dict):
            self.metadata, self._lines = own["metadata"], [b"{}"] * len(self._episodes)
            if own.get("lines"):
                with open_regular(root / layout.OWN_LINES) as file:
                    self._lines = [*file, *[b""] * len(self._episodes)]
        self._table = lru_cache(2)(lambda path, names: _read_table(path, names)[0])
        self._cameras: dict[str, Any] = {}  # key that was asked for -> `video.Camera`

    def _find_rows(self, path: Path, places: list[int], rising: list[str]) -> None:
        """Find the rows of the episodes of a file, and whether its derived columns are so, times to the last bit."""
        newer, number = self._info["codebase_version"] == "v3.0", Feature((), np.dtype(np.float64))
        table, schema = _read_table(path, ["episode_index"] if newer else [], list(DERIVED))
        for one in schema:
            self._kinds[one.name].setdefault(_stored_dtype(one.type), []).extend(places)
        found = {name: _to_array(table[name], Column(name, "", number, None), path) for name in table.column_names}
        # In v2.x an episode has a file of its own.
        owners = found["episode_index"] if newer else np.full(len(table), self._episodes[places[0]].index)
        counted = zip(*np.unique(owners, return_index=True, return_counts=True), strict=True)
        runs = {owner: (int(first), int(count)) for owner, first, count in counted}
        for place in places:
            episode = self._episodes[place]
            of, (episode.first, count) = f"episode {episode.index}", runs.pop(episode.index, (0, 0))
            rows, steps = slice(episode.first, episode.first + count), np.arange(episode.length)
            part = {name: values[rows] for name, values in found.items()}
            drops = {name: np.diff(part[name]) < 0 for name in rising if name in part}
            falls = [f"{name} falls after its step {np.argmax(drop)}" for name, drop in drops.items() if drop.any()]
            fault = f"time runs backwards in {of}: {falls[0]}" if falls else ""
            if np.any(owners[rows] != episode.index):
                fault = f"has other rows between those of {of}"
            if count != episode.length:
                fault = f"holds {count} steps of {of}, and the table of episodes says {episode.length}"
            if fault:
                remedy = "correct the rows or the table of episodes, or leave the episode out"
                self._add_faults({place: f"{path}: {fault}; {remedy}."})
                continue
            episode.task = int(np.nan_to_num(part.get("task_index", [-1])[0]))
            expected = layout.derived(steps, float(self._info["fps"]), place, self.first_row(place), episode.task)
            for name, values in part.items():
                if not np.all(np.abs(values - expected[name]) <= np.spacing(np.abs(expected[name]))):
                    self._irregular.add(name)
        if runs and not any("no table names" in remark for remark in self.remarks):
            self.remarks.append(f"{path.relative_to(self._root)} has rows of episodes that no table names; left out.")

    def _as_stored(self, column: Column) -> Column:
        """The column with the type that most episodes have; a ValueError says why there is nothing of it."""
        if column.dtype == "video":
            place = f"videos/{column.name}"
            paths = {episode.videos[place][0] for episode in self._episodes if place in episode.videos}
            if not any(path.exists() for path in paths):
                first = f", the first {min(paths).relative_to(self._root)}" if paths else ""
                raise ValueError(f"its videos are missing, {len(paths)} in all{first}")
            return column
        pictures, stored = column.dtype == "image", self._kinds[column.name]
        kinds = {kind: places for kind, places in stored.items() if kind and (kind == "image") == pictures}
        if not kinds and any(self._kinds.values()):
            raise ValueError("the tables have no such column, or another kind of values in it")
        kind = max(kinds, key=lambda kind: len(kinds[kind]), default=column.dtype)
        fitting = [kinds[other] for other in kinds if pictures or np.can_cast(other, kind, "safe")]
        lacking = f"has no column '{column.name}', or of another type than the others; leave the episode out."
        misfits = set(range(len(self._episodes))).difference(*fitting)
        self._unasked[column.name] = {place: f"{self._episodes[place].data}: {lacking}" for place in misfits}
        if kind != column.dtype:
            said = f"is {kind} in the tables and {column.dtype} in info.json; read as the first."
            self.remarks.append(f"{column.name} {said}")
            column = column._replace(dtype=kind, feature=Feature(column.feature.shape, np.dtype(kind)))
        return column

    def close(self) -> None:
        """See `EpisodeReader`."""
        for camera in self._cameras.values():
            camera.close()

    def own_name(self, key: str) -> str:
        """See `EpisodeReader`."""
        return self._columns[key].name

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """See `EpisodeReader`."""
        if self._lines:
            return json_object(self._lines[episode], self._root / layout.OWN_LINES, f"line {episode + 1}")
        row, spans = self._episodes[episode], layout.spans(entry(self._info, "splits"))
        tasks = row.tasks or self._tasks[max(row.task, 0) : row.task + 1]
        one = len(tasks) == 1 and "task_index" not in self._irregular
        facts: dict[str, Any] = {"task": tasks[0]} if one else {"tasks": tasks}
        # A split counts the episodes as they lie when the last one ends at their number, else LeRobot's episode_index.
        by_place = max((span.stop for span in spans.values()), default=0) == len(self._episodes)
        filters = [name for name, span in spans.items() if (episode if by_place else row.index) in span]
        return facts | ({"filters": filters} if filters else {})

    def ask_for(self, keys: Sequence[str]) -> None:
        """See `EpisodeReader`."""
        super().ask_for(keys)
        for key, column in {key: self._columns[key] for key in keys}.items():
            if column.dtype == "video" and key not in self._cameras:
                camera = imported("lerobot.video:Camera", self.source)(column, self._episodes, self._info)
                self._cameras[key], self._unasked[column.name] = camera, camera.faults
                self.remarks += [remark.replace(f"{self._root}/", "") for remark in camera.remarks]
            self._add_faults(self._unasked.pop(column.name, {}))

    def _add_faults(self, faults: dict[int, str]) -> None:
        for place, sentence in faults.items():
            index = self._episodes[place].index
            name = f"episode {place}" + (f" (episode_index {index})" if index != place else "")
            self.faults.setdefault(place, f"{name}: {sentence.removeprefix(f'{self._root}/')}")

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        row, cameras = self._episodes[episode], [key for key in keys if key in self._cameras]
        found = {key: self._cameras[key].read(episode, start, stop) for key in cameras}
        columns = {key: self._columns[key] for key in keys if key not in found}
        table = self._table(row.data, tuple(column.name for column in columns.values()))
        part = table.slice(row.first + start, stop - start)
        found |= {key: _to_array(part[column.name], column, row.data) for key, column in columns.items()}
        return {key: found[key] for key in keys}


def _read_episodes(root: Path, info: dict[str, Any]) -> list[Episode]:
    """The episodes in order of their index; where their rows begin and what is stored is not looked at."""
    cameras = [name for name in info["features"] if entry(info["features"], name).get("dtype") == "video"]
    fields = ("chunk_index", "file_index", "from_timestamp")
    needed = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    wanted = ["tasks", *(f"videos/{camera}/{name}" for camera in cameras for name in fields)]
    newer = info["codebase_version"] == "v3.0"
    paths = sorted((root / EPISODES).glob("*/*.parquet")) if newer else [root / f"{EPISODES}.jsonl"]
    rows = [row for path in paths for row in _read_rows(path, needed, wanted)]
    episodes = sorted((_episode(root, info, row, cameras) for row in rows), key=lambda episode: episode.index)
    if len({episode.index for episode in episodes}) < len(episodes) or not episodes:
        said = "an episode twice; remove one" if episodes else "no episode; download the set again, or record some"
        raise UserError(f"{root / EPISODES}: the table names {said}.")
    return episodes


def _episode(root: Path, info: dict[str, Any], row: dict[str, Any], cameras: Sequence[str]) -> Episode:
    index, length, tasks = row.get("episode_index"), row.get("length"), row.get("tasks") or []
    if type(index) is not int or type(length) is not int or not (0 <= index < 2**40 and 0 < length < 2**40):
        said = f"an episode has episode_index {str(index)[:40]} and length {str(length)[:40]} in the table"
        raise UserError(f"{root / EPISODES}: {said}; correct or remove that row.")
    numbers: dict[str, Any] = {"episode_index": index}
    files: dict[str, tuple[Path, float]] = {}
    for place in ("data", *(f"videos/{camera}" for camera in cameras)):
        numbers.update({name: row.get(f"{place}/{name}") for name in ("chunk_index", "file_index")})
        with suppress(KeyError, ValueError, TypeError, AttributeError, ZeroDivisionError):  # its file is unknown then
            numbers["episode_chunk"] = index // info.get("chunks_size", 1000)
            template = info["data_path" if place == "data" else "video_path"]
            text = template.replace("{video_key}", place.removeprefix("videos/"))
            text = re.sub(r"\{(\w+)(?::0?(\d{1,2})d)?\}", lambda found: f"{numbers[found[1]]:0{found[2] or 1}d}", text)
            start = float(row.get(f"{place}/from_timestamp", 0.0))  # in v2.x an episode has a file of its own
            if math.isfinite(start) and not Path(text).is_absolute() and ".." not in Path(text).parts:
                files[place] = root / text, start
    if "data" not in files:
        said = ", ".join(f"{name} {str(info.get(name))[:80]}" for name in ("data_path", "chunks_size"))
        why = f"info.json ({said}) does not tell a file in the folder for episode {index}"
        raise UserError(f"{root}: {why}; correct it, or the table of episodes.")
    tasks = list(map(str, tasks if isinstance(tasks, list) else [tasks]))
    return Episode(index, length, tasks, files.pop("data")[0], files)


def _read_tasks(root: Path) -> list[str]:
    """The tasks in words by task_index, "" for a number without words; [] without a file of them."""
    # The words are the index of a pandas table; early writers of v3.0 left it without a name.
    unnamed, paths = "__index_level_0__", [root / f"{layout.TASKS}.parquet", root / f"{layout.TASKS}.jsonl"]
    rows = [row for path in paths if path.exists() for row in _read_rows(path, ["task_index"], ["task", unnamed])]
    pairs = [(row.get("task_index"), str(row.get("task", row.get(unnamed, "")))) for row in rows]
    tasks = {number: words for number, words in pairs if type(number) is int and 0 <= number < 2**20}
    return [tasks.get(number, "") for number in range(max(tasks, default=-1) + 1)]


def _read_rows(path: Path, needed: Sequence[str], wanted: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a small table, parquet or JSON a line."""
    if path.suffix == ".parquet":
        return list(_read_table(path, needed, wanted)[0].to_pylist())
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
    shape, at = column.feature.shape, f"{path}: column '{column.name}'"
    with decoding(path, f"column '{column.name}'"):
        if column.dtype == "image":
            pictures = [_picture(content, shape, at) for content in pc.struct_field(cells, "bytes").to_pylist()]
            return np.array(pictures, np.uint8).reshape(len(cells), *shape)
        values, even = cells.combine_chunks(), True
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


def _picture(content: bytes | None, shape: tuple[int, ...], at: str) -> np.ndarray:
    if content is None:
        raise UserError(f"{at} holds paths; embed the pictures in the table as `LeRobotDataset` does.")
    with Image.open(io.BytesIO(content)) as image:
        layout.check_size(image.height, image.width, shape, at)
        return np.asarray(image.convert({1: "L", 3: "RGB", 4: "RGBA"}[shape[2]]))
