"""Writing LeRobot data sets of version 3.0, piece by piece."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial, reduce
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from policy_accel.data.formats.base import EpisodeReader, Feature, OnProgress, pieces
from policy_accel.data.formats.lerobot import layout
from policy_accel.data.formats.lerobot.layout import CAMERAS, DERIVED, Column, entry
from policy_accel.data.formats.recognise import imported
from policy_accel.errors import UserError, one_of
from policy_accel.files import new_path
from policy_accel.parsing import is_number

DEFAULT_FPS = 10
DATA_BYTES, VIDEO_BYTES = 100 * 2**20, 200 * 2**20  # of a file, LeRobot's limits
CHUNKS_SIZE = 1000  # files of a folder, and episodes of a file of their table
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = f"{layout.EPISODES}/chunk-{{chunk_index:03d}}/file-{{file_index:03d}}.parquet"
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_LOWEST = ("min", "q01", "q10", "q50")  # of a whole, the lowest of its parts; of the other levels the highest
_SAMPLE_BYTES = 16_000_000  # of all features of an episode together, for their quantiles
_PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def write_lerobot(
    path: Path | str,
    reader: EpisodeReader,
    *,
    fps: float | None = None,
    images: str = "lossless",
    progress: OnProgress | None = None,
) -> None:
    """Write a LeRobot data set of version 3.0, a piece at a time, whole or not at all.

    What LeRobot has no place for goes into info.json and a file beside it, so that reading it gives back the same.

    Args:
        path: a folder, new.
        fps: steps per second; None for what the metadata say (`fps`, or the control frequency in `env_args`), else 10.
        images: RGB pictures as H.264 "lossless" or "h264" (yuv420p, crf 30), or "png" in the tables, where pictures of
            one or four channels always go, and those that a LeRobot set had there.

    Raises:
        UserError: `path` exists, an unknown option, what cannot be stored, a full disk, av not installed for videos.
    """
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
            self._place, self._path = _place(self._root, self._template, self._number)
            self.writer = self._opened(self._path)
        self._steps += length
        return self._place, self._steps - length

    def close(self) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()


def _place(root: Path, template: str, number: int) -> tuple[dict[str, int], Path]:
    """The numbers of a file that is the `number`th of its kind, and its path, whose folder is made."""
    place = dict(zip(("chunk_index", "file_index"), divmod(number, CHUNKS_SIZE), strict=True))
    path = root / template.format(**place)
    path.parent.mkdir(parents=True, exist_ok=True)
    return place, path


class _Writer:
    def __init__(self, root: Path, reader: EpisodeReader, fps: float | None, images: str) -> None:
        self._root, self._reader, self._lossless = root, reader, images == "lossless"
        self._metadata = reader.metadata | ({} if fps is None else {"fps": fps})
        facts = entry(entry(reader.metadata, "env_args"), "env_kwargs") | self._metadata
        told: list[Any] = [facts.get("fps"), facts.get("control_freq"), DEFAULT_FPS]
        rate = next(rate for rate in told if is_number(rate) and rate > 0)
        self._fps: float = int(rate) if float(rate).is_integer() else rate
        self._recorded = entry(reader.metadata, "lerobot")  # what a set that came from there carries
        listed = self._recorded.get("tasks")
        self._tasks = {str(task): number for number, task in enumerate(listed if isinstance(listed, list) else ())}
        features = {key: entry(entry(self._recorded, "features"), key) for key in reader.features}
        known = {key: str(of["name"]) for key, of in features.items() if of.get("name")}
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
        self._schema = _schema(self._columns)
        self._table = _Files(root, DATA_PATH, DATA_BYTES, partial(pq.ParquetWriter, schema=self._schema))
        self._videos: dict[str, _Files] = {}
        for column in [column for column in self._columns if column.dtype == "video"]:
            opened = imported("lerobot.video:FrameWriter", reader.source)
            begin = partial(opened, camera=column, fps=self._fps, lossless=self._lossless)
            path = VIDEO_PATH.replace("{video_key}", column.name)
            self._videos[column.name] = _Files(root, path, VIDEO_BYTES, begin)
        self._statistics: dict[str, Levels] = {}
        (root / "meta").mkdir(parents=True)
        self._lines = (root / layout.OWN_LINES).open("w", encoding="utf-8")
        self._open: list[Any] = [self._table, *self._videos.values(), self._lines]

    def close(self) -> None:
        """Close the files, also after an error."""
        for file in self._open:
            file.close()

    def run(self, progress: OnProgress | None) -> None:
        episodes, steps = len(self._reader.episode_ends), int(self._reader.episode_ends[-1])
        for number, first in enumerate(range(0, episodes, CHUNKS_SIZE)):
            place, path = _place(self._root, EPISODES_PATH, number)
            more = {f"meta/episodes/{name}": value for name, value in place.items()}
            some = range(first, min(first + CHUNKS_SIZE, episodes))
            rows = [self._write_episode(episode, progress) | more for episode in some]
            pq.write_table(pa.Table.from_pylist(rows), path)
        self.close()
        # As pandas stores a table whose index are the words.
        words = {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object"}
        about = {"index_columns": ["task"], "column_indexes": [], "columns": [words | {"metadata": None}]}
        fields = [("task_index", pa.int64()), ("task", pa.string())]
        schema = pa.schema(fields, metadata={"pandas": json.dumps(about | {"pandas_version": "2.2.3"})})
        tasks = pa.table([[*self._tasks.values()], [*self._tasks]], schema=schema)
        pq.write_table(tasks, self._root / f"{layout.TASKS}.parquet")
        for name, value in {"meta/stats.json": self._statistics, layout.INFO: self._info(episodes, steps)}.items():
            text = json.dumps(value, indent=4, ensure_ascii=False, default=np.ndarray.tolist)  # as LeRobot does
            (self._root / name).write_text(text, encoding="utf-8")

    def _write_episode(self, episode: int, progress: OnProgress | None) -> dict[str, Any]:
        """Write an episode and return its row in the table of episodes."""
        reader, facts = self._reader, self._reader.episode_metadata(episode)
        begin, end = reader.first_row(episode), int(reader.episode_ends[episode])
        self._lines.write(json.dumps(facts, ensure_ascii=False) + "\n")
        named = self._metadata.get("task") or entry(self._metadata, "env_args").get("env_name") or "unspecified"
        listed = facts.get("tasks") or facts.get("task") or named
        tasks = list(map(str, listed if isinstance(listed, list) else [listed]))
        for task in tasks:  # numbered on their first appearance
            self._tasks.setdefault(task, len(self._tasks))
        row: dict[str, Any] = {f"data/{name}": number for name, number in self._table.begin(end - begin)[0].items()}
        row |= {"dataset_from_index": begin, "dataset_to_index": end}
        for camera, video in self._videos.items():
            place, first = video.begin(end - begin)
            times = {"from_timestamp": first / self._fps, "to_timestamp": (first + end - begin) / self._fps}
            row |= {f"videos/{camera}/{name}": value for name, value in (place | times).items()}
        statistics, seen = EpisodeStatistics(self._columns, end - begin), set[int]()
        for _, start, rows, values in pieces(reader, list(self._names), [episode]):
            columns = layout.derived(np.arange(start, start + rows), self._fps, episode, begin, self._tasks[tasks[0]])
            columns |= {self._names[key]: part for key, part in values.items()}
            seen.update(np.unique(columns["task_index"]).tolist())
            arrays = [_to_arrow(columns[field.name], field.type, start) for field in self._schema]
            self._table.writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
            for name, video in self._videos.items():
                video.writer.write(columns[name], start)
            statistics.add(columns, start)
            if progress is not None:
                progress(begin + start + rows, int(reader.episode_ends[-1]))
        if "task_index" in self._names.values():
            if unknown := seen.difference(range(len(self._tasks))):
                why = f"task_index {min(unknown)} in episode {episode} has no task in words, {len(self._tasks)} have"
                raise UserError(f"{reader.source}: {why}; leave the key task_index out.")
            tasks = [list(self._tasks)[number] for number in sorted(seen)]
        found = statistics.result()
        self._statistics = {name: merged(self._statistics.get(name), levels) for name, levels in found.items()}
        flat = {f"stats/{name}/{level}": v.tolist() for name, of in found.items() for level, v in of.items()}
        return {"episode_index": episode, "tasks": tasks, "length": end - begin} | row | flat

    def _info(self, episodes: int, steps: int) -> dict[str, Any]:
        splits = entry(self._recorded, "splits")
        if max((span.stop for span in layout.spans(splits).values()), default=0) != episodes:
            splits = {"train": f"0:{episodes}"}
        features = {}
        for name, dtype, feature, names in self._columns:
            shape, axes = feature.shape, ["height", "width", "channels"] if dtype in CAMERAS else names
            features[name] = {"dtype": dtype, "shape": list(shape) or [1], "names": axes}
            if dtype == "video":  # as `get_video_info` of LeRobot finds it in the file
                notes = {"height": shape[0], "width": shape[1], "codec": "h264", "fps": int(self._fps), "channels": 3}
                notes["pix_fmt"] = "gbrp" if self._lossless else "yuv420p"
                told = {f"video.{name}": value for name, value in notes.items()}
                features[name]["info"] = told | {"has_audio": False, "is_depth_map": False}
        info: dict[str, Any] = {"codebase_version": "v3.0", "fps": self._fps, "chunks_size": CHUNKS_SIZE}
        info |= {"robot_type": self._recorded.get("robot_type"), "features": features, "splits": splits}
        info |= {"total_episodes": episodes, "total_frames": steps, "total_tasks": len(self._tasks)}
        info |= {"data_files_size_in_mb": DATA_BYTES // 2**20, "video_files_size_in_mb": VIDEO_BYTES // 2**20}
        info |= {"data_path": DATA_PATH, "video_path": VIDEO_PATH if self._videos else None}
        own = {"episodes": episodes, "steps": steps, "keys": {name: key for key, name in self._names.items()}}
        own["shapes"] = {of.name: list(of.feature.shape) for of in self._columns if of.feature.shape in ((), (1,))}
        return info | {layout.OWN: own | {"metadata": self._metadata, "lines": True}}


def _schema(columns: list[Column]) -> pa.Schema:
    """The Arrow schema of a data file with the features of Hugging Face `datasets` in its metadata."""
    fields, features = [], {}
    for name, dtype, feature, _ in columns:
        shape = feature.shape if feature.shape != (1,) else ()
        kind, value = pa.from_numpy_dtype(feature.dtype), dict[str, Any](dtype=dtype, _type="Value")
        if dtype == "image":
            kind, value = _PICTURE, {"_type": "Image"}
        elif len(shape) == 1:
            kind, value = pa.list_(kind, shape[0]), {"feature": value, "length": shape[0], "_type": "Sequence"}
        elif shape:
            kind = reduce(lambda kind, _: pa.list_(kind), shape, kind)
            value = {"shape": shape, "dtype": dtype, "_type": f"Array{len(shape)}D"}
        if dtype != "video":
            fields.append((name, kind))
            features[name] = value
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _to_arrow(values: np.ndarray, kind: pa.DataType, first: int) -> pa.Array:
    """An array [rows, *shape] as a column of a table, of which the first row is step `first` of its episode."""
    if kind == _PICTURE:
        cells = []
        for step, pixels in enumerate(values, first):
            Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(png := io.BytesIO(), "PNG")
            cells.append({"bytes": png.getvalue(), "path": f"frame-{step:06d}.png"})
        return pa.array(cells, kind)
    result = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in reversed(values.shape[1:] if pa.types.is_nested(kind) else ()):
        result = pa.FixedSizeListArray.from_arrays(result, size)
    return result.cast(kind)


Levels = dict[str, np.ndarray]
"""Statistics of a feature: "min", "max", "mean", "std", "count" [1] and the quantiles."""


def sampled_frames(length: int) -> np.ndarray:
    """The frames of an episode for the statistics of pictures: length^0.75 of them, from all up to 100 to 10,000."""
    count = max(min(100, length), min(int(length**0.75), 10_000))
    return np.round(np.linspace(0, length - 1, count)).astype(np.int64)


class EpisodeStatistics:
    """Statistics of the columns, with the videos, of an episode of `length` steps, gathered piece by piece: of numbers
    over all steps and axes but the last; of pictures per channel, divided by 255, over some frames, large ones thinned
    out (`datasets/compute_stats.py` of lerobot v0.6)."""

    def __init__(self, columns: list[Column], length: int) -> None:
        # LeRobot refuses a set in which a feature named like an image has statistics of another shape.
        self._columns = [column for column in columns if column.dtype in CAMERAS or "image" not in column.name]
        self._frames, self._length, self._total = sampled_frames(length), length, dict[str, Levels]()
        self._samples = defaultdict[str, list[np.ndarray]](list)

    def add(self, values: dict[str, np.ndarray], start: int) -> None:
        """Take in steps from `start` on: LeRobot's name -> [rows, *shape]."""
        for column in self._columns:
            part, steps = values[column.name], self._length
            if column.dtype in CAMERAS:
                thin, steps = max(1, max(part.shape[1:3]) // 150), len(self._frames)
                part = part[np.isin(np.arange(start, start + len(part)), self._frames), ::thin, ::thin]
                part = part[..., np.arange(3) % min(part.shape[3], 3)]  # LeRobot's pictures have three channels
            if len(part):
                flat = part.reshape(-1, part.shape[-1] if part.ndim > 1 else 1)
                size = steps * (flat.size // len(part)) * 8 * len(self._columns)  # of the whole episode
                self._samples[column.name].append(flat[:: 1 + size // _SAMPLE_BYTES].copy())
                wide = flat.astype(np.float64)
                found = {"min": wide.min(0), "max": wide.max(0), "mean": wide.mean(0), "std": wide.std(0)}
                found["count"] = np.array([len(part)])
                self._total[column.name] = merged(self._total.get(column.name), found)

    def result(self) -> dict[str, Levels]:
        """The statistics, for pictures [3, 1, 1], for numbers the last axis of a step or [1]."""
        for column in self._columns:
            samples, found = np.concatenate(self._samples[column.name]), self._total[column.name]
            levels = np.quantile(samples, list(QUANTILES.values()), axis=0, method="inverted_cdf").astype(np.float64)
            found |= dict(zip(QUANTILES, levels, strict=True))
            if column.dtype in CAMERAS:
                found |= {level: of[:, None, None] / 255 for level, of in found.items() if level != "count"}
        return self._total


def merged(old: Levels | None, new: Levels) -> Levels:
    """The statistics of what came so far, None at first, and of one more part (Chan et al. 1983); for quantiles, which
    cannot be had from those of parts, as LeRobot the lowest of those up to the median, the highest of those above."""
    if old is None:
        return dict(new)
    count = old["count"] + new["count"]
    mean = (old["count"] * old["mean"] + new["count"] * new["mean"]) / count
    spread = sum(one["count"] * (one["std"] ** 2 + (one["mean"] - mean) ** 2) for one in (old, new))
    outer = {level: (np.minimum if level in _LOWEST else np.maximum)(old[level], new[level]) for level in new}
    return outer | {"mean": mean, "std": np.sqrt(spread / count), "count": count}
