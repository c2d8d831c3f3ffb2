"""The files that steps go to: one for each episode in v2.1, files of many episodes up to a size in v3.0."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from policy_accel.data.formats.lerobot.layout import DATA_PATHS, V21, VIDEO_PATHS, Column
from policy_accel.data.formats.lerobot.metadata_writer import CHUNKS_SIZE
from policy_accel.data.formats.lerobot.tables import make_schema, to_column
from policy_accel.data.formats.lerobot.video import FrameWriter

DATA_BYTES, VIDEO_BYTES = 100 * 2**20, 200 * 2**20  # of a file of v3.0, LeRobot's limits


class _Numbered(ABC):
    """Decides before each episode whether a new file begins, and how it is called.

    Attributes:
        chunk: number of the folder of the file that is open.
        file: its number in the folder.
        steps: of it so far.
    """

    def __init__(self, root: Path, template: str, limit: int | None) -> None:
        self.chunk = self.file = self.steps = 0
        self._root, self._template, self._limit = root, template, limit
        self._open = False

    def begin(self, episode: int, length: int, **names: str) -> None:
        """Make ready for an episode of `length` steps."""
        if self._open:
            size = self._bytes()
            if self._limit is not None and size + size / max(1, self.steps) * length < self._limit:
                return
            self.close()
            self.chunk, self.file = (self.chunk + 1, 0) if self.file == CHUNKS_SIZE - 1 else (self.chunk, self.file + 1)
        numbers = {"episode_chunk": episode // CHUNKS_SIZE, "episode_index": episode}
        path = self._root / self._template.format(**numbers, chunk_index=self.chunk, file_index=self.file, **names)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._start(path)
        self.steps, self._open = 0, True

    def close(self) -> None:
        """Close the file."""
        if self._open:
            self._open = False
            self._finish()

    @abstractmethod
    def _start(self, path: Path) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _bytes(self) -> int: ...


class TableSink(_Numbered):
    """Parquet files of the columns that are not videos, compressed by snappy; a row group for every piece."""

    def __init__(self, root: Path, version: str, columns: list[Column]) -> None:
        super().__init__(root, DATA_PATHS[version], None if version == V21 else DATA_BYTES)
        self._columns, self._schema = columns, make_schema(columns)
        self._picture = "frame_{frame_index:06d}.png" if version == V21 else "frame-{frame_index:06d}.png"

    def _start(self, path: Path) -> None:
        self._file = path.open("wb")
        self._writer = pq.ParquetWriter(self._file, self._schema, compression="snappy", use_dictionary=True)

    def write(self, values: dict[str, np.ndarray], start: int) -> None:
        """Append steps, of which the first is step `start` of its episode: name -> [rows, *shape]."""
        arrays = [
            to_column(values[column.name], column, start, self._picture).cast(kind.type)
            for column, kind in zip(self._columns, self._schema, strict=True)
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self.steps += len(arrays[0])

    def _finish(self) -> None:
        self._writer.close()
        self._file.close()

    def _bytes(self) -> int:
        return self._file.tell()


class VideoSink(_Numbered):
    """The mp4 files of one camera."""

    def __init__(self, root: Path, version: str, column: Column, fps: float, *, lossless: bool) -> None:
        super().__init__(root, VIDEO_PATHS[version], None if version == V21 else VIDEO_BYTES)
        self._column, self._fps, self._lossless = column, fps, lossless
        self._frames: Any = None

    def _start(self, path: Path) -> None:
        height, width = self._column.feature.shape[:2]
        self._frames = FrameWriter(path, self._column.name, self._fps, height, width, lossless=self._lossless)

    def write(self, frames: np.ndarray, start: int) -> None:
        """Append uint8 [rows, H, W, 3], of which the first is step `start` of its episode."""
        self._frames.write(frames, episode_start=start == 0)
        self.steps += len(frames)

    def _finish(self) -> None:
        self._frames.close()

    def _bytes(self) -> int:
        return int(self._frames.bytes)
