"""The files that steps are written to: parquet tables and mp4 videos of many episodes, up to a size."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from policy_accel.data.formats.lerobot.layout import DATA_PATH, VIDEO_PATH, Column
from policy_accel.errors import UserError

try:
    import av
    from av.video.frame import PictureType
except ImportError:
    av = None  # type: ignore[assignment]

DATA_BYTES, VIDEO_BYTES = 100 * 2**20, 200 * 2**20  # of a file, LeRobot's limits
CHUNKS_SIZE = 1000  # files of a folder

_PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


class TableWriter:
    """A parquet file of the columns that are not videos, compressed by snappy; a row group for every piece."""

    def __init__(self, path: Path, columns: list[Column]) -> None:
        self._columns, self._schema = columns, _schema(columns)
        self._file = path.open("wb")
        self._writer = pq.ParquetWriter(self._file, self._schema, compression="snappy", use_dictionary=True)

    @property
    def bytes(self) -> int:
        """Written so far."""
        return self._file.tell()

    def write(self, steps: dict[str, np.ndarray], start: int) -> None:
        """Append steps, of which the first is step `start` of its episode: name -> [rows, *shape]."""
        arrays = [
            _to_arrow(steps[column.name], column, start).cast(field.type)
            for column, field in zip(self._columns, self._schema, strict=True)
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
        self._file.close()


def _schema(columns: list[Column]) -> pa.Schema:
    """The Arrow schema of a data file with the features of Hugging Face `datasets` in its metadata."""
    fields, features = [], {}
    for column in columns:
        shape, dtype = column.feature.shape, column.dtype
        value: dict[str, Any] = {"dtype": dtype, "_type": "Value"}
        kind, metadata = None if dtype == "image" else pa.from_numpy_dtype(column.feature.dtype), None
        if dtype == "image":
            kind, value = _PICTURE, {"_type": "Image"}
        elif len(shape) == 1 and shape != (1,):
            kind, value = pa.list_(kind, shape[0]), {"feature": value, "length": shape[0], "_type": "Sequence"}
        elif len(shape) > 1:
            for _ in shape:
                kind = pa.list_(kind)
            value = {"shape": list(shape), "dtype": dtype, "_type": f"Array{len(shape)}D"}
            metadata = {
                "ARROW:extension:name": f"datasets.features.features.Array{len(shape)}DExtensionType",
                "ARROW:extension:metadata": json.dumps([list(shape), dtype]),
            }
        fields.append(pa.field(column.name, kind, metadata=metadata))
        features[column.name] = value
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _to_arrow(values: np.ndarray, column: Column, first: int) -> pa.Array:
    """An array [rows, *shape] as the column of a table, of which the first row is step `first` of its episode."""
    if column.dtype == "image":
        names = [f"frame-{step:06d}.png" for step in range(first, first + len(values))]
        rows = [{"bytes": _png(value), "path": name} for value, name in zip(values, names, strict=True)]
        return pa.array(rows, _PICTURE)
    result = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in reversed(column.feature.shape if column.feature.shape != (1,) else ()):
        result = pa.FixedSizeListArray.from_arrays(result, size)
    return result


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(buffer, "PNG")
    return buffer.getvalue()


class FrameWriter:
    """An mp4 file of one camera, frame by frame.

    H.264 with a key frame every second frame, as LeRobot's own files, so that a loader finds any frame fast. Lossless
    is RGB without quantisation, else yuv420p at LeRobot's usual quality (crf 30).

    Raises:
        UserError: an odd height or width, which yuv420p cannot have.
    """

    def __init__(self, path: Path, camera: Column, fps: float, *, lossless: bool) -> None:
        height, width = camera.feature.shape[:2]
        if not lossless and (height % 2 or width % 2):
            raise UserError(
                f"{camera.name}: frames of {height}x{width} pixels cannot be h264 with halved colour, which "
                "needs even sizes; write them lossless or as png."
            )
        self.bytes = self._count = 0
        self._container = av.open(str(path), "w")
        self._stream = self._container.add_stream(
            "libx264rgb" if lossless else "libx264",
            rate=Fraction(fps).limit_denominator(100_000),
            options={"g": "2", "bf": "0", **({"qp": "0"} if lossless else {"crf": "30"})},
        )
        self._stream.pix_fmt = "rgb24" if lossless else "yuv420p"
        self._stream.height, self._stream.width = height, width

    def write(self, frames: np.ndarray, start: int) -> None:
        """Append uint8 [n, H, W, 3], of which the first is step `start` of its episode, at 0 a key frame."""
        for row, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = self._count, 1 / self._stream.codec_context.framerate
            if row == 0 and start == 0:
                frame.pict_type = PictureType.I
            self._count += 1
            self._mux(self._stream.encode(frame))

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            self.bytes += packet.size
            self._container.mux(packet)

    def close(self) -> None:
        """Write what is left and the index of the file."""
        self._mux(self._stream.encode())
        self._container.close()


def video_facts(path: Path) -> dict[str, Any]:
    """What info.json says of a camera's files, from the first of them: `get_video_info` of LeRobot."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        facts = {"video.height": stream.height, "video.width": stream.width, "video.codec": stream.codec.canonical_name}
        facts |= {"video.pix_fmt": stream.pix_fmt, "video.fps": int(stream.base_rate or 0), "video.channels": 3}
        return facts | {"has_audio": False, "is_depth_map": False}


class Files:
    """The files of one kind; before each episode it is decided whether a new one begins.

    Args:
        root: the folder of the data set.
        template: of their paths in it.
        limit: size in bytes that a file keeps below.
        begin: begins a file.

    Attributes:
        chunk: number of the folder of the file that is open.
        file: its number in the folder.
        steps: of it so far.
    """

    def __init__(
        self, root: Path, template: str, limit: int, begin: Callable[[Path], TableWriter | FrameWriter], **names: str
    ) -> None:
        self.chunk = self.file = self.steps = 0
        self._root, self._template, self._limit, self._begin, self._names = root, template, limit, begin, names
        self._writer: Any = None

    def begin(self, length: int) -> None:
        """Make ready for an episode of `length` steps."""
        if self._writer is not None:
            size = self._writer.bytes
            if size + size / max(1, self.steps) * length < self._limit:
                return
            self.close()
            self.chunk, self.file = (self.chunk + 1, 0) if self.file == CHUNKS_SIZE - 1 else (self.chunk, self.file + 1)
        path = self._root / self._template.format(chunk_index=self.chunk, file_index=self.file, **self._names)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer, self.steps = self._begin(path), 0

    def write(self, steps: Any, start: int, rows: int) -> None:
        """Append `rows` steps of the episode that was begun, from its step `start` on."""
        self._writer.write(steps, start)
        self.steps += rows

    def close(self) -> None:
        """Close the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def table_files(root: Path, columns: list[Column]) -> Files:
    """The parquet files of a data set."""
    return Files(root, DATA_PATH, DATA_BYTES, lambda path: TableWriter(path, columns))


def video_files(root: Path, camera: Column, fps: float, *, lossless: bool) -> Files:
    """The mp4 files of one camera."""
    return Files(
        root,
        VIDEO_PATH,
        VIDEO_BYTES,
        lambda path: FrameWriter(path, camera, fps, lossless=lossless),
        video_key=camera.name,
    )
