"""Writing LeRobot data sets of version 3.0, piece by piece."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.formats.base import EpisodeReader, Feature
from policy_accel.data.formats.lerobot.files import (
    CHUNKS_SIZE,
    DATA_BYTES,
    VIDEO_BYTES,
    table_files,
    video_facts,
    video_files,
)
from policy_accel.data.formats.lerobot.layout import (
    CAMERAS,
    DATA_PATH,
    DERIVED,
    INFO,
    OWN,
    OWN_LINES,
    STATISTICS,
    TASKS_TABLE,
    VIDEO_PATH,
    Column,
)
from policy_accel.data.formats.lerobot.metadata import EpisodeTable, splits, write_json, write_tasks
from policy_accel.data.formats.lerobot.names import to_names
from policy_accel.data.formats.lerobot.statistics import EpisodeStatistics
from policy_accel.data.formats.lerobot.video import require_av
from policy_accel.data.formats.streaming import OnProgress, pieces
from policy_accel.errors import UserError, one_of
from policy_accel.files import new_path

IMAGES = ("lossless", "h264", "png")
DEFAULT_FPS = 10
_PIECE_BYTES = 8_000_000
_MAX_AXES = 5


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

    What LeRobot has no place for goes into a field "policy_accel" of info.json and into
    meta/policy_accel_episodes.jsonl, which other readers do not look at, so that reading it gives back the same.

    Args:
        path: a folder, new.
        reader: the demonstrations.
        version: v3.0, the only one that is written.
        fps: steps per second; None for what the metadata say (`fps`, or the control frequency in `env_args`), else 10.
        images: RGB pictures as H.264 "lossless" or "h264" (yuv420p, crf 30), or "png" in the tables, where pictures of
            one or four channels always go, and those that a LeRobot set had there.
        progress: called with (steps so far, all steps).

    Raises:
        UserError: `path` exists, another version, an unknown way to store images, what cannot be stored, a full disk,
            av not installed for videos.
    """
    if version != "v3.0":
        raise UserError(
            f"LeRobot version {version} is not written, v3.0 alone; leave it out (LeRobot reads v3.0 from 0.4 on)."
        )
    one_of("images", images, IMAGES)
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


def _rate(metadata: dict[str, Any]) -> float:
    """The control rate that the metadata tell."""
    for facts in (metadata, _object(_object(metadata, "env_args"), "env_kwargs")):
        rate = facts.get("fps") or facts.get("control_freq")
        if isinstance(rate, int | float) and rate > 0:
            return rate
    return DEFAULT_FPS


def _object(facts: dict[str, Any], name: str) -> dict[str, Any]:
    value = facts.get(name)
    return value if isinstance(value, dict) else {}


class _Writer:
    def __init__(self, root: Path, reader: EpisodeReader, fps: float | None, images: str) -> None:
        self._root, self._reader, self._images = root, reader, images
        self._fps = _rate(reader.metadata) if fps is None else fps
        self._metadata = reader.metadata | ({} if fps is None else {"fps": fps})
        self._recorded = _object(reader.metadata, "lerobot")  # what a set that came from there carries
        listed = self._recorded.get("tasks")
        self._tasks = {str(task): number for number, task in enumerate(listed if isinstance(listed, list) else ())}
        features = _object(self._recorded, "features")  # key -> LeRobot's "name" and "dtype", "names" of the axes
        known = {key: facts["name"] for key, facts in features.items() if "name" in facts}
        self._names = to_names(reader.features, known, tasks=bool(self._tasks))
        self._columns = []
        for key, name in self._names.items():
            if name not in DERIVED:
                facts, feature = features.get(key, {}), reader.features[key]
                self._columns.append(Column(name, self._dtype(key, facts), feature, facts.get("names")))
        self._columns += [Column(name, dtype, Feature((), np.dtype(dtype)), None) for name, dtype in DERIVED.items()]
        cameras = [column for column in self._columns if column.dtype == "video"]
        if cameras:
            require_av(f"{reader.source}: writing videos")
        self._episodes = EpisodeTable(root)
        self._table = table_files(root, [column for column in self._columns if column.dtype != "video"])
        self._videos = {
            camera.name: video_files(root, camera, self._fps, lossless=images == "lossless") for camera in cameras
        }
        keep_lines = any(reader.episode_metadata(episode) for episode in range(len(reader.episode_ends)))
        self._lines = (root / OWN_LINES).open("w", encoding="utf-8") if keep_lines else None

    def _dtype(self, key: str, recorded: dict[str, Any]) -> str:
        feature = self._reader.features[key]
        if feature.is_image:
            in_table = self._images == "png" or feature.shape[2] != 3 or recorded.get("dtype") == "image"
            return "image" if in_table else "video"
        if len(feature.shape) > _MAX_AXES:
            raise UserError(
                f"{self._reader.source}: data/{key} has {len(feature.shape)} axes a step, and LeRobot knows "
                f"{_MAX_AXES}; leave the key out or flatten it."
            )
        return str(feature.dtype)

    def run(self, progress: OnProgress | None) -> None:
        ends = self._reader.episode_ends
        for episode, length in enumerate(np.diff(ends, prepend=0)):
            self._write_episode(episode, int(length), int(ends[episode] - length), progress)
        self.close()
        write_tasks(self._root / TASKS_TABLE, list(self._tasks))
        write_json(self._root / STATISTICS, self._episodes.statistics)
        write_json(self._root / INFO, self._info(len(ends), int(ends[-1])))

    def _info(self, episodes: int, steps: int) -> dict[str, Any]:
        return {
            "codebase_version": "v3.0",
            "robot_type": self._recorded.get("robot_type"),
            "total_episodes": episodes,
            "total_frames": steps,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNKS_SIZE,
            "data_files_size_in_mb": DATA_BYTES // 2**20,
            "video_files_size_in_mb": VIDEO_BYTES // 2**20,
            "fps": int(self._fps) if float(self._fps).is_integer() else self._fps,
            "splits": splits(self._recorded.get("splits"), episodes),
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._videos else None,
            "features": {column.name: self._feature(column) for column in self._columns},
            OWN: {  # what reading the set back as it was needs
                "episodes": episodes,
                "steps": steps,
                "keys": {name: key for key, name in self._names.items()},
                "shapes": {
                    self._names[key]: list(feature.shape)
                    for key, feature in self._reader.features.items()
                    if feature.shape in ((), (1,))
                },
                "metadata": self._metadata,
                "lines": self._lines is not None,
            },
        }

    def _feature(self, column: Column) -> dict[str, Any]:
        axes = ["height", "width", "channels"] if column.dtype in CAMERAS else column.names
        facts = {"dtype": column.dtype, "shape": list(column.feature.shape) or [1], "names": axes}
        if column.dtype == "video":
            path = VIDEO_PATH.format(video_key=column.name, chunk_index=0, file_index=0)
            facts["info"] = video_facts(self._root / path)
        return facts

    def close(self) -> None:
        """Close the files, also after an error."""
        for file in (self._table, *self._videos.values(), self._episodes, self._lines):
            if file is not None:
                file.close()

    def _write_episode(self, episode: int, length: int, index: int, progress: OnProgress | None) -> None:
        facts = self._reader.episode_metadata(episode)
        tasks = self._tasks_of(facts)
        for files in (self._table, *self._videos.values()):
            files.begin(length)
        row: dict[str, Any] = {"data/chunk_index": self._table.chunk, "data/file_index": self._table.file}
        row |= {"dataset_from_index": index, "dataset_to_index": index + length}
        for name, video in self._videos.items():
            row |= {f"videos/{name}/chunk_index": video.chunk, f"videos/{name}/file_index": video.file}
            row[f"videos/{name}/from_timestamp"] = video.steps / self._fps
            row[f"videos/{name}/to_timestamp"] = (video.steps + length) / self._fps
        statistics = EpisodeStatistics(self._columns, length)
        seen: set[int] = set()
        for _, start, rows, values in pieces(self._reader, list(self._names), [episode], piece_bytes=_PIECE_BYTES):
            steps = np.arange(start, start + rows)
            named: dict[str, np.ndarray] = {
                "timestamp": (steps / self._fps).astype(np.float32),
                "frame_index": steps,
                "episode_index": np.full(rows, episode),
                "index": index + steps,
                "task_index": np.full(rows, self._tasks[tasks[0]]),
            }
            named |= {self._names[key]: part for key, part in values.items()}
            seen.update(np.unique(named["task_index"]).tolist())
            self._table.write(named, start, rows)
            for name, video in self._videos.items():
                video.write(named[name], start, rows)
            statistics.add(named, start)
            if progress is not None:
                progress(index + start + rows, int(self._reader.episode_ends[-1]))
        if "task_index" in self._names.values():
            tasks = [self._task(number, episode) for number in sorted(seen)]
        self._episodes.add({"episode_index": episode, "tasks": tasks, "length": length} | row, statistics.result())
        if self._lines is not None:
            self._lines.write(json.dumps(facts, ensure_ascii=False) + "\n")

    def _tasks_of(self, facts: dict[str, Any]) -> list[str]:
        """The tasks of an episode in words, numbered on their first appearance."""
        name = _object(self._metadata, "env_args").get("env_name")
        listed = facts.get("tasks") or [facts.get("task") or self._metadata.get("task") or name or "unspecified"]
        tasks = [str(task) for task in (listed if isinstance(listed, list) else [listed])]
        for task in tasks:
            self._tasks.setdefault(task, len(self._tasks))
        return tasks

    def _task(self, number: int, episode: int) -> str:
        if not 0 <= number < len(self._tasks):
            raise UserError(
                f"{self._reader.source}: task_index {number} in episode {episode} has no task in words "
                f"({len(self._tasks)} are known); leave the key task_index out."
            )
        return list(self._tasks)[number]
