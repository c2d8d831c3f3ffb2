"""Writing LeRobot data sets of version 3.0, piece by piece."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from policy_accel.data.formats.base import EpisodeReader, Feature
from policy_accel.data.formats.lerobot import layout
from policy_accel.data.formats.lerobot.layout import CAMERAS, DERIVED, Column, entry
from policy_accel.data.formats.lerobot.video import FrameWriter, video_facts
from policy_accel.data.formats.streaming import OnProgress, pieces
from policy_accel.errors import UserError, one_of
from policy_accel.files import new_path

DEFAULT_FPS = 10
DATA_BYTES, VIDEO_BYTES = 100 * 2**20, 200 * 2**20  # of a file, LeRobot's limits
CHUNKS_SIZE = 1000  # files of a folder, and episodes of a file of their table
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = f"{layout.EPISODES}/chunk-{{chunk_index:03d}}/file-{{file_index:03d}}.parquet"
_PIECE_BYTES = 8_000_000
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_SAMPLE_BYTES = 16_000_000  # of all features of an episode together, for their quantiles
_PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def write_lerobot(
    path: Path | str,
    reader: EpisodeReader,
    *,
    version: str = "v3.0",
    fps: float | None = None,
    images: str = "lossless",
    progress: OnProgress | None = None,
) -> None:
    """Write a LeRobot data set of version 3.0, a piece at a time, whole or not at all.

    What LeRobot has no place for goes into info.json and a file beside it, so that reading it gives back the same.

    Args:
        path: a folder, new.
        reader: the demonstrations.
        fps: steps per second; None for what the metadata say (`fps`, or the control frequency in `env_args`), else 10.
        images: RGB pictures as H.264 "lossless" or "h264" (yuv420p, crf 30), or "png" in the tables, where pictures of
            one or four channels always go, and those that a LeRobot set had there.
        progress: called with (steps so far, all steps).

    Raises:
        UserError: `path` exists, an unknown option, what cannot be stored, a full disk, av not installed for videos.
    """
    if version != "v3.0":
        raise UserError(f"LeRobot version {version} is not written, v3.0 alone; leave it out (LeRobot 0.4 reads v3.0).")
    one_of("images", images, ("lossless", "h264", "png"))
    if fps is not None and not (np.isfinite(fps) and fps > 0):
        raise UserError(f"fps={fps} must be a positive number of frames per second.")
    with new_path(Path(path)) as temporary:
        writer = _Writer(temporary, reader, fps, images)
        try:
            writer.run(progress)
        except BaseException:
            with suppress(Exception):  # never in place of the error that led here
                writer.close()
            raise


class _Files:
    """Files of one kind, which `opened` begins; before each episode it is decided whether a new one begins."""

    def __init__(self, root: Path, template: str, limit: int, opened: Callable[[Path], Any]) -> None:
        self._root, self._template, self._limit, self._opened = root, template, limit, opened
        self._number, self._path, self._steps, self.writer = -1, root, 0, cast(Any, None)  # of the file that is open

    def begin(self, length: int) -> tuple[dict[str, int], int]:
        """Make ready for an episode of `length` steps: the numbers of its file, and its first step there."""
        if self.writer is None or self._path.stat().st_size * (1 + length / self._steps) >= self._limit:
            self.close()
            self._number, self._steps = self._number + 1, 0
            self._path = self._root / self._template.format(**_numbers(self._number))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self.writer = self._opened(self._path)
        self._steps += length
        return _numbers(self._number), self._steps - length

    def close(self) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()


def _numbers(number: int) -> dict[str, int]:
    return dict(zip(("chunk_index", "file_index"), divmod(number, CHUNKS_SIZE), strict=True))


class _Writer:
    def __init__(self, root: Path, reader: EpisodeReader, fps: float | None, images: str) -> None:
        self._root, self._reader = root, reader
        self._metadata = reader.metadata | ({} if fps is None else {"fps": fps})
        facts = entry(entry(reader.metadata, "env_args"), "env_kwargs") | self._metadata
        told = [rate for rate in (facts.get("fps"), facts.get("control_freq")) if isinstance(rate, int | float)]
        rate = fps or next((rate for rate in told if rate > 0), DEFAULT_FPS)
        self._fps = int(rate) if float(rate).is_integer() else rate
        self._recorded = entry(reader.metadata, "lerobot")  # what a set that came from there carries
        listed = self._recorded.get("tasks")
        self._tasks = {str(task): number for number, task in enumerate(listed if isinstance(listed, list) else ())}
        features = {key: entry(entry(self._recorded, "features"), key) for key in reader.features}
        known = {key: of["name"] for key, of in features.items() if "name" in of}
        self._names = layout.to_names(reader.features, known, tasks=bool(self._tasks))
        self._columns = []
        for key, name in self._names.items():
            feature, dtype = reader.features[key], str(reader.features[key].dtype)
            if feature.is_image:
                in_table = images == "png" or feature.shape[2] != 3 or features[key].get("dtype") == "image"
                dtype = "image" if in_table else "video"
            elif len(feature.shape) > 5:
                why = f"data/{key} has {len(feature.shape)} axes a step, and LeRobot knows 5"
                raise UserError(f"{reader.source}: {why}; leave the key out or flatten it.")
            self._columns.append(Column(name, dtype, feature, features[key].get("names")))
        derived = [(name, dtype) for name, dtype in DERIVED.items() if name not in self._names.values()]
        self._columns += [Column(name, dtype, Feature((), np.dtype(dtype)), None) for name, dtype in derived]
        self._in_table = [column for column in self._columns if column.dtype != "video"]
        self._schema = _schema(self._in_table)
        self._table = _Files(root, DATA_PATH, DATA_BYTES, partial(pq.ParquetWriter, schema=self._schema))
        cameras = [column for column in self._columns if column.dtype == "video"]
        begin = partial(FrameWriter, fps=self._fps, lossless=images == "lossless")
        self._videos = {
            one.name: _Files(root, VIDEO_PATH.replace("{video_key}", one.name), VIDEO_BYTES, partial(begin, camera=one))
            for one in cameras
        }
        self._rows: list[dict[str, Any]] = []  # of the table of episodes
        self._statistics: Statistics = {}
        has_facts = any(reader.episode_metadata(episode) for episode in range(len(reader.episode_ends)))
        (root / "meta").mkdir(parents=True)
        self._lines = (root / layout.OWN_LINES).open("w", encoding="utf-8") if has_facts else None

    def close(self) -> None:
        """Close the files, also after an error."""
        for file in (self._table, *self._videos.values(), self._lines):
            if file is not None:
                file.close()

    def run(self, progress: OnProgress | None) -> None:
        ends = self._reader.episode_ends.tolist()
        for episode, (begin, end) in enumerate(pairwise([0, *ends])):
            self._write_episode(episode, begin, end, progress)
            if len(self._rows) == CHUNKS_SIZE or end == ends[-1]:
                place = _numbers(episode // CHUNKS_SIZE)
                path = self._root / EPISODES_PATH.format(**place)
                path.parent.mkdir(parents=True, exist_ok=True)
                more = {f"meta/episodes/{name}": number for name, number in place.items()}
                pq.write_table(pa.Table.from_pylist([row | more for row in self._rows]), path)
                self._rows.clear()
        self.close()
        _write_tasks(self._root / f"{layout.TASKS}.parquet", list(self._tasks))
        for name, value in {"meta/stats.json": self._statistics, layout.INFO: self._info(len(ends), ends[-1])}.items():
            text = json.dumps(value, indent=4, ensure_ascii=False, default=np.ndarray.tolist)  # as LeRobot does
            (self._root / name).write_text(text, encoding="utf-8")

    def _write_episode(self, episode: int, begin: int, end: int, progress: OnProgress | None) -> None:
        facts, length = self._reader.episode_metadata(episode), end - begin
        named = self._metadata.get("task") or entry(self._metadata, "env_args").get("env_name") or "unspecified"
        listed = facts.get("tasks") or facts.get("task") or named
        tasks = list(map(str, listed if isinstance(listed, list) else [listed]))
        for task in tasks:  # numbered on their first appearance
            self._tasks.setdefault(task, len(self._tasks))
        row: dict[str, Any] = {f"data/{name}": number for name, number in self._table.begin(length)[0].items()}
        row |= {"dataset_from_index": begin, "dataset_to_index": end}
        for camera, video in self._videos.items():
            place, first = video.begin(length)
            times = {"from_timestamp": first / self._fps, "to_timestamp": (first + length) / self._fps}
            row |= {f"videos/{camera}/{name}": value for name, value in (place | times).items()}
        statistics, seen = EpisodeStatistics(self._columns, length), set[int]()
        for _, start, rows, values in pieces(self._reader, list(self._names), [episode], piece_bytes=_PIECE_BYTES):
            steps = np.arange(start, start + rows)
            columns: dict[str, np.ndarray] = {"frame_index": steps, "index": begin + steps}
            columns |= {"timestamp": (steps / self._fps).astype(np.float32), "episode_index": np.full(rows, episode)}
            columns["task_index"] = np.full(rows, self._tasks[tasks[0]])
            columns |= {self._names[key]: part for key, part in values.items()}
            seen.update(np.unique(columns["task_index"]).tolist())
            kinds = zip(self._in_table, self._schema.types, strict=True)
            arrays = [_to_arrow(columns[column.name], column, start).cast(kind) for column, kind in kinds]
            self._table.writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
            for name, video in self._videos.items():
                video.writer.write(columns[name], start)
            statistics.add(columns, start)
            if progress is not None:
                progress(begin + start + rows, int(self._reader.episode_ends[-1]))
        if "task_index" in self._names.values():
            if unknown := seen.difference(range(len(self._tasks))):
                why = f"task_index {min(unknown)} in episode {episode} has no task in words, {len(self._tasks)} have"
                raise UserError(f"{self._reader.source}: {why}; leave the key task_index out.")
            tasks = [list(self._tasks)[number] for number in sorted(seen)]
        found = statistics.result()
        merge(self._statistics, found)
        flat = {f"stats/{name}/{level}": v.tolist() for name, of in found.items() for level, v in of.items()}
        self._rows.append({"episode_index": episode, "tasks": tasks, "length": length} | row | flat)
        if self._lines is not None:
            self._lines.write(json.dumps(facts, ensure_ascii=False) + "\n")

    def _info(self, episodes: int, steps: int) -> dict[str, Any]:
        splits = {name: str(span) for name, span in entry(self._recorded, "splits").items()}
        found = [re.fullmatch(r"(\d+):(\d+)", span) for span in splits.values()]
        if not splits or not all(found) or max(int(span[2]) for span in found if span) != episodes:
            splits = {"train": f"0:{episodes}"}
        info: dict[str, Any] = {"codebase_version": "v3.0", "fps": self._fps, "chunks_size": CHUNKS_SIZE}
        info |= {"robot_type": self._recorded.get("robot_type"), "features": {}}
        info |= {"total_episodes": episodes, "total_frames": steps, "total_tasks": len(self._tasks), "splits": splits}
        info |= {"data_files_size_in_mb": DATA_BYTES // 2**20, "video_files_size_in_mb": VIDEO_BYTES // 2**20}
        info |= {"data_path": DATA_PATH, "video_path": VIDEO_PATH if self._videos else None}
        for column in self._columns:
            axes = ["height", "width", "channels"] if column.dtype in CAMERAS else column.axes
            facts = {"dtype": column.dtype, "shape": list(column.feature.shape) or [1], "names": axes}
            if column.dtype == "video":
                path = VIDEO_PATH.format(video_key=column.name, chunk_index=0, file_index=0)
                facts["info"] = video_facts(self._root / path)
            info["features"][column.name] = facts
        own = {"episodes": episodes, "steps": steps, "keys": {name: key for key, name in self._names.items()}}
        shapes = {self._names[key]: list(feature.shape) for key, feature in self._reader.features.items()}
        own["shapes"] = {name: shape for name, shape in shapes.items() if shape in ([], [1])}
        return info | {layout.OWN: own | {"metadata": self._metadata, "lines": self._lines is not None}}


def _schema(columns: list[Column]) -> pa.Schema:
    """The Arrow schema of a data file with the features of Hugging Face `datasets` in its metadata."""
    fields, features = [], {}
    for name, dtype, feature, _ in columns:
        kind, value = _PICTURE, dict[str, Any](_type="Image")
        if dtype != "image":
            kind, value = pa.from_numpy_dtype(feature.dtype), {"dtype": dtype, "_type": "Value"}
            if len(feature.shape) > 1:
                value = {"shape": feature.shape, "dtype": dtype, "_type": f"Array{len(feature.shape)}D"}
            elif feature.shape not in ((), (1,)):
                value = {"feature": value, "length": feature.shape[0], "_type": "Sequence"}
            for _ in feature.shape if feature.shape != (1,) else ():
                kind = pa.list_(kind, feature.shape[0] if len(feature.shape) == 1 else -1)
        fields.append((name, kind))
        features[name] = value
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _to_arrow(values: np.ndarray, column: Column, first: int) -> pa.Array:
    """An array [rows, *shape] as the column of a table, of which the first row is step `first` of its episode."""
    if column.dtype == "image":
        return pa.array([_png(pixels, first + row) for row, pixels in enumerate(values)], _PICTURE)
    result = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in reversed(column.feature.shape if column.feature.shape != (1,) else ()):
        result = pa.FixedSizeListArray.from_arrays(result, size)
    return result


def _png(picture: np.ndarray, step: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"frame-{step:06d}.png"}


def _write_tasks(path: Path, tasks: list[str]) -> None:
    """Write the tasks as pandas stores a table whose index are the words: columns `task_index` and `task`."""
    words = {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    facts = {"index_columns": ["task"], "column_indexes": [], "columns": [words], "pandas_version": "2.2.3"}
    schema = pa.schema([("task_index", pa.int64()), ("task", pa.string())], metadata={"pandas": json.dumps(facts)})
    pq.write_table(pa.table([list(range(len(tasks))), tasks], schema=schema), path)


Statistics = dict[str, dict[str, np.ndarray]]
"""Feature -> "min", "max", "mean", "std", "count" [1] and the quantiles."""


def sampled_frames(length: int) -> np.ndarray:
    """The frames of an episode for the statistics of pictures: length^0.75 of them, from all up to 100 to 10,000."""
    count = max(min(100, length), min(int(length**0.75), 10_000))
    return np.round(np.linspace(0, length - 1, count)).astype(np.int64)


class EpisodeStatistics:
    """Statistics of the columns, with the videos, of an episode of `length` steps, gathered piece by piece.

    After `datasets/compute_stats.py` of lerobot v0.6: numbers over all steps and axes but the last; pictures per
    channel, divided by 255, over some frames of the episode, large ones thinned out.
    """

    def __init__(self, columns: list[Column], length: int) -> None:
        # LeRobot refuses a set in which a feature named like an image has statistics of another shape.
        self._columns = [column for column in columns if column.dtype in CAMERAS or "image" not in column.name]
        self._frames, self._length = sampled_frames(length), length
        self._total: Statistics = {}
        self._samples: dict[str, list[np.ndarray]] = {column.name: [] for column in self._columns}

    def add(self, values: dict[str, np.ndarray], start: int) -> None:
        """Take in steps from `start` on: LeRobot's name -> [rows, *shape]."""
        for column in self._columns:
            part, steps = values[column.name], self._length
            if column.dtype in CAMERAS:
                side, steps = max(part.shape[1:3]), len(self._frames)
                chosen = self._frames[(self._frames >= start) & (self._frames < start + len(part))] - start
                part = part[chosen, :: side // 150, :: side // 150] if side >= 300 else part[chosen]
            if len(part):
                flat = part.reshape(-1, part.shape[-1] if part.ndim > 1 else 1)
                size = steps * (flat.size // len(part)) * 8 * len(self._columns)  # of the whole episode
                self._samples[column.name].append(flat[:: 1 + size // _SAMPLE_BYTES].copy())
                wide = flat.astype(np.float64)
                found = {"min": wide.min(0), "max": wide.max(0), "mean": wide.mean(0), "std": wide.std(0)}
                merge(self._total, {column.name: found | {"count": np.array([len(part)])}})

    def result(self) -> Statistics:
        """The statistics, for pictures [3, 1, 1], for numbers the last axis of a step or [1]."""
        for column in self._columns:
            samples, found = np.concatenate(self._samples[column.name]), self._total[column.name]
            levels = np.quantile(samples, list(QUANTILES.values()), axis=0, method="inverted_cdf").astype(np.float64)
            found |= dict(zip(QUANTILES, levels, strict=True))
            if column.dtype in CAMERAS:  # LeRobot's pictures have three channels
                channels = np.arange(3) % (3 if len(found["mean"]) >= 3 else 1)
                found |= {level: v[channels, None, None] / 255 for level, v in found.items() if level != "count"}
        return self._total


def merge(total: Statistics, part: Statistics) -> None:
    """Take the statistics of one more part into those of what came so far (Chan et al. 1983).

    Quantiles of the whole cannot be had from those of the parts: as LeRobot, the lowest of those up to the median and
    the highest of those above.
    """
    for name, new in part.items():
        old = total.get(name)
        if old is None:
            total[name] = dict(new)
            continue
        count = old["count"] + new["count"]
        mean = (old["count"] * old["mean"] + new["count"] * new["mean"]) / count
        spread = sum(one["count"] * (one["std"] ** 2 + (one["mean"] - mean) ** 2) for one in (old, new))
        for level in new:
            lowest = level == "min" or QUANTILES.get(level, 1) <= 0.5
            old[level] = (np.minimum if lowest else np.maximum)(old[level], new[level])
        old |= {"mean": mean, "std": np.sqrt(spread / count), "count": count}
