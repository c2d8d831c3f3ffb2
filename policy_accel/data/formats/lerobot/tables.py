"""The tables of a LeRobot data set: its episodes, where their rows lie, and columns as arrays.

Columns are those of Hugging Face `datasets`: a number is a value, a vector a list, more axes nested lists (extension
types Array2D to Array5D), a picture a struct of encoded bytes and a path.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from policy_accel.data.formats.base import decoding
from policy_accel.data.formats.lerobot.layout import EPISODES, TASKS, Column, json_object
from policy_accel.errors import UserError
from policy_accel.files import open_regular
from policy_accel.memory import check_fits


def read_table(path: Path, needed: Sequence[str], wanted: Sequence[str] = ()) -> tuple[pa.Table, pa.Schema]:
    """The columns of a parquet file that are needed, and of the wanted those that it has; and what it holds in all.

    Raises:
        UserError: the file is missing or damaged, or lacks a column that is needed.
    """
    open_regular(path).close()
    with decoding(path, "the table"), pq.ParquetFile(path) as file:
        names, rows = file.schema_arrow.names, file.metadata.num_rows
        if missing := [name for name in needed if name not in names]:
            raise UserError(f"{path}: has no column '{missing[0]}', but {', '.join(names)[:300]}; copy the set again.")
        present = [*needed, *(name for name in wanted if name in names and name not in needed)]
        check_fits(8 * rows * len(present), f"{path}: its {rows} rows", stored=path.stat().st_size)
        return file.read(columns=present).select(present), file.schema_arrow  # "a" would read "a.b" too


def stored_dtype(kind: pa.DataType) -> str:
    """What a column of this type holds: a NumPy dtype, "image" (bytes and path), or "" for anything else."""
    while isinstance(kind, pa.BaseExtensionType | pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind.value_type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return "image"
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return str(np.dtype(kind.to_pandas_dtype())) if numeric else ""


def to_array(cells: pa.ChunkedArray, column: Column, path: Path) -> np.ndarray:
    """Some rows of a column as [rows, *shape].

    Raises:
        UserError: values missing, rows of another shape, another type than can be cast without loss.
    """
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


@dataclass
class Episode:
    """An episode as the tables have it."""

    index: int  # LeRobot's episode_index
    length: int
    tasks: list[str]
    data: Path
    videos: dict[str, tuple[Path, float]]  # camera -> file, and the second in it at which the episode begins
    first: int = 0  # its first row in the file
    task: int = -1  # task_index of its first step
    stored: dict[str, str] = field(default_factory=dict)  # column -> dtype, "image" or "" in the file


def read_episodes(root: Path, info: dict[str, Any], cameras: Sequence[str]) -> list[Episode]:
    """The episodes in order of their index; where their rows begin and what is stored is not looked at.

    Raises:
        UserError: tables of episodes that are missing or damaged, a set without episodes, paths that cannot be made.
    """
    needed = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    fields = ("chunk_index", "file_index", "from_timestamp")
    wanted = ["tasks", *(f"videos/{camera}/{name}" for camera in cameras for name in fields)]
    paths = sorted((root / EPISODES).glob("*/*.parquet"))
    rows = [row for path in paths for row in read_table(path, needed, wanted)[0].to_pylist()]
    if info["codebase_version"] != "v3.0":
        start = {f"videos/{camera}/from_timestamp": 0.0 for camera in cameras}
        rows = [row | start for row in _lines(root / f"{EPISODES}.jsonl")]
    episodes = sorted((_episode(root, info, row, cameras) for row in rows), key=lambda episode: episode.index)
    if len({episode.index for episode in episodes}) < len(episodes) or not episodes:
        said = "names an episode twice; remove one of them" if episodes else "names no episode; record some"
        raise UserError(f"{root / EPISODES}: the table {said}, or choose another data set.")
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
    return Episode(index, length, list(map(str, tasks if isinstance(tasks, list) else [tasks])), data, videos)


def read_tasks(root: Path) -> list[str]:
    """The tasks in words by task_index, "" for a number without words; [] without a file of them."""
    old, new = root / f"{TASKS}.jsonl", root / f"{TASKS}.parquet"
    # The words are the index of a pandas table; early writers of v3.0 left it without a name.
    unnamed = "__index_level_0__"
    rows = read_table(new, ["task_index"], ["task", unnamed])[0].to_pylist() if new.exists() else []
    rows += _lines(old) if old.exists() else []
    pairs = [(row.get("task_index"), str(row.get("task", row.get(unnamed, "")))) for row in rows]
    tasks = {number: words for number, words in pairs if type(number) is int and 0 <= number < 2**20}
    return [tasks.get(number, "") for number in range(max(tasks, default=-1) + 1)]


def _lines(path: Path) -> list[dict[str, Any]]:
    with open_regular(path) as file:
        return [json_object(line, path, f"line {number}") for number, line in enumerate(file, 1) if line.strip()]
