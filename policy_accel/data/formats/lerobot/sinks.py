"""The files that steps go to: one for each episode in v2.1, files of many episodes up to a size in v3.0."""

from __future__ import annotations

from collections.abc import Callable
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


class TableWriter:
    """A parquet file of the columns that are not videos, compressed by snappy; a row group for every piece."""

    def __init__(self, path: Path, version: str, columns: list[Column]) -> None:
        self._columns, self._schema = columns, make_schema(columns)
        self._picture = "frame_{frame_index:06d}.png" if version == V21 else "frame-{frame_index:06d}.png"
        self._file = path.open("wb")
        self._writer = pq.ParquetWriter(self._file, self._schema, compression="snappy", use_dictionary=True)

    @property
    def bytes(self) -> int:
        """Written so far."""
        return self._file.tell()

    def write(self, steps: dict[str, np.ndarray], start: int) -> None:
        """Append steps, of which the first is step `start` of its episode: name -> [rows, *shape]."""
        arrays = [
            to_column(steps[column.name], column, start, self._picture).cast(kind.type)
            for column, kind in zip(self._columns, self._schema, strict=True)
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
        self._file.close()


class Sink:
    """Decides before each episode whether a new file begins, and how it is called.

    Args:
        root: the folder of the data set.
        template: of the names of the files.
        limit: size in bytes that a file keeps below; None for a file for each episode.
        open_file: begins a file.

    Attributes:
        chunk: number of the folder of the file that is open.
        file: its number in the folder.
        steps: of it so far.
    """

    def __init__(
        self, root: Path, template: str, limit: int | None, open_file: Callable[[Path], TableWriter | FrameWriter]
    ) -> None:
        self.chunk = self.file = self.steps = 0
        self._root, self._template, self._limit, self._open_file = root, template, limit, open_file
        self._writer: TableWriter | FrameWriter | None = None

    def begin(self, episode: int, length: int, **names: str) -> None:
        """Make ready for an episode of `length` steps."""
        if self._writer is not None:
            size = self._writer.bytes
            if self._limit is not None and size + size / max(1, self.steps) * length < self._limit:
                return
            self.close()
            self.chunk, self.file = (self.chunk + 1, 0) if self.file == CHUNKS_SIZE - 1 else (self.chunk, self.file + 1)
        numbers = {"episode_chunk": episode // CHUNKS_SIZE, "episode_index": episode}
        path = self._root / self._template.format(**numbers, chunk_index=self.chunk, file_index=self.file, **names)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer, self.steps = self._open_file(path), 0

    def write(self, steps: Any, start: int, rows: int) -> None:
        """Append `rows` steps of the episode that was begun, from its step `start` on."""
        assert self._writer is not None
        self._writer.write(steps, start)
        self.steps += rows

    def close(self) -> None:
        """Close the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def table_sink(root: Path, version: str, columns: list[Column]) -> Sink:
    """The parquet files of a data set."""
    limit = None if version == V21 else DATA_BYTES
    return Sink(root, DATA_PATHS[version], limit, lambda path: TableWriter(path, version, columns))


def video_sink(root: Path, version: str, column: Column, fps: float, *, lossless: bool) -> Sink:
    """The mp4 files of one camera."""
    limit = None if version == V21 else VIDEO_BYTES
    return Sink(root, VIDEO_PATHS[version], limit, lambda path: FrameWriter(path, column, fps, lossless=lossless))
