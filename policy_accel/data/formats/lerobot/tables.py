"""Parquet as LeRobot writes it: columns to arrays and back, rows read in order in bounded memory.

Columns are those of Hugging Face `datasets`: a number is a value, a vector a fixed-size list, more axes nested lists
(extension types Array2D to Array5D), a picture a struct of encoded bytes and a path; the schema carries the features
as JSON under "huggingface".
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from policy_accel.data.formats.lerobot.layout import Column
from policy_accel.errors import UserError
from policy_accel.files import explain_os_error

_BATCH_ROWS, _BATCH_PICTURES = 4096, 32
_OPEN_CURSORS = 4
_LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@contextmanager
def parquet_file(path: Path) -> Iterator[pq.ParquetFile]:
    """An open parquet file; what is wrong with it, also while it is read, is one sentence.

    Raises:
        UserError: missing, cut off, damaged.
    """
    with explained_table(path), pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
        yield file


@contextmanager
def explained_table(path: Path) -> Iterator[None]:
    """Turn what pyarrow says about the file `path` into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise UserError(f"{path}: is cut off or damaged ({_line(error)}); copy or download it again.") from error
        raise explain_os_error(error, path, "read") from error
    except pa.ArrowException as error:
        raise UserError(f"{path}: is cut off or damaged ({_line(error)}); copy or download it again.") from error


def _line(error: Exception) -> str:
    return str(error).split("\n")[0].rstrip(". ")


def to_array(column: pa.Array, wanted: Column, where: str) -> np.ndarray:
    """A column of a table as [rows, *shape].

    Raises:
        UserError: values missing, or lists of another size than info.json says.
    """
    if wanted.dtype == "image":
        return _pictures(column, wanted, where)
    rows, values = len(column), column
    while True:
        if values.null_count:
            raise UserError(f"{where}: column '{wanted.name}' has empty values; record them or leave the episode out.")
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        elif (
            pa.types.is_list(values.type)
            or pa.types.is_large_list(values.type)
            or pa.types.is_fixed_size_list(values.type)
        ):
            values = values.flatten()
        else:
            break
    shape = (rows, *wanted.feature.shape)
    if len(values) != np.prod(shape, dtype=np.int64):
        raise UserError(
            f"{where}: column '{wanted.name}' has {len(values)} numbers in {rows} rows, and info.json says shape "
            f"{list(wanted.feature.shape)}; correct the shape or copy the data set again."
        )
    array: np.ndarray = values.to_numpy(zero_copy_only=False).astype(wanted.feature.dtype, copy=False).reshape(shape)
    return array


def _pictures(column: pa.Array, wanted: Column, where: str) -> np.ndarray:
    height, width, channels = wanted.feature.shape
    result = np.empty((len(column), height, width, channels), np.uint8)
    if not pa.types.is_struct(column.type) or column.type.get_field_index("bytes") < 0:
        raise UserError(f"{where}: column '{wanted.name}' holds {column.type}, not pictures; correct info.json.")
    for row, content in enumerate(column.field("bytes")):
        if not content.is_valid:
            raise UserError(
                f"{where}: column '{wanted.name}' has no picture in row {row}, only a path; embed the pictures in the "
                "table as `LeRobotDataset` does."
            )
        try:
            with Image.open(io.BytesIO(content.as_py())) as image:
                mode = _MODES[channels]
                pixels = np.asarray(image if image.mode == mode else image.convert(mode))
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(
                f"{where}: column '{wanted.name}' has a picture that cannot be decoded; copy the data set again."
            ) from error
        if pixels.shape[:2] != (height, width):
            raise UserError(
                f"{where}: column '{wanted.name}' has a picture of {pixels.shape[0]}x{pixels.shape[1]} pixels, and "
                f"info.json says {height}x{width}; correct the shape there."
            )
        result[row] = pixels.reshape(height, width, channels)
    return result


class RowCursor:
    """Reads runs of rows; asked for in order, no part of a file is decoded twice and only a batch is in memory."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, ...], _Rows] = {}

    def read(self, path: Path, columns: Sequence[Column], start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows [start, stop) of a file: LeRobot's name -> [stop - start, *shape].

        Raises:
            UserError: missing or damaged file, a column that it lacks.
        """
        names = tuple(column.name for column in columns)
        rows = self._open.pop(names, None)
        with explained_table(path):
            if rows is None or not rows.reaches(path, start):
                if rows is not None:
                    rows.close()
                rows = _Rows(path, columns, start)
            self._open[names] = rows
            while len(self._open) > _OPEN_CURSORS:
                self._open.pop(next(iter(self._open))).close()
            result = {
                column.name: np.empty((max(0, stop - start), *column.feature.shape), column.feature.dtype)
                for column in columns
            }
            for at, batch in rows.take(start, stop):
                for column in columns:
                    values = to_array(batch.column(column.name), column, str(path))
                    result[column.name][at - start : at - start + len(values)] = values
        return result

    def close(self) -> None:
        """Close the files."""
        while self._open:
            self._open.popitem()[1].close()


class _Rows:
    def __init__(self, path: Path, columns: Sequence[Column], start: int) -> None:
        self.path = path
        self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20)
        require_columns(path, self._file.schema_arrow.names, [column.name for column in columns])
        groups = self._file.metadata.num_row_groups
        self._ends = np.cumsum([self._file.metadata.row_group(group).num_rows for group in range(groups)])
        first = int(np.searchsorted(self._ends, start, side="right"))
        self._position = int(self._ends[first - 1]) if first else 0
        pictures = any(column.dtype == "image" for column in columns)
        self._batches = self._file.iter_batches(
            _BATCH_PICTURES if pictures else _BATCH_ROWS,
            row_groups=list(range(first, groups)),
            columns=[column.name for column in columns],
        )
        self._rest: pa.RecordBatch | None = None

    def reaches(self, path: Path, start: int) -> bool:
        """Whether reading on from here comes to the row `start` before a new row group would."""
        if path != self.path or start < self._position:
            return False
        group = np.searchsorted(self._ends, [self._position, start], side="right")
        return bool(group[1] - group[0] <= 1)

    def take(self, start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The rows [start, stop) with the number of the first row of every batch."""
        while self._position < stop:
            batch = self._rest if self._rest is not None else next(self._batches, None)
            self._rest = None
            if batch is None:
                raise UserError(f"{self.path}: ends before row {stop}; copy or download it again.")
            begin = min(max(0, start - self._position), len(batch))
            end = min(len(batch), stop - self._position)
            if end > begin:
                yield self._position + begin, batch.slice(begin, end - begin)
            if end < len(batch):
                self._rest = batch.slice(end)
            self._position += end

    def close(self) -> None:
        self._file.close()


def require_columns(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise UserError when the table at `path` lacks a column."""
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(
            f"{path}: has no column '{missing[0]}', which info.json names; it has {', '.join(found)}: correct "
            "info.json or copy the data set again."
        )


def make_schema(columns: Sequence[Column]) -> pa.Schema:
    """The Arrow schema of a data file with the features of Hugging Face `datasets` in its metadata."""
    fields, features = [], {}
    for column in columns:
        shape, dtype = column.feature.shape, column.dtype
        metadata = None
        feature: dict[str, Any]
        if dtype == "image":
            kind, feature = pa.struct({"bytes": pa.binary(), "path": pa.string()}), {"_type": "Image"}
        elif shape in ((), (1,)):
            kind, feature = _arrow(dtype), {"dtype": dtype, "_type": "Value"}
        elif len(shape) == 1:
            kind = pa.list_(_arrow(dtype), shape[0])
            feature = {"feature": {"dtype": dtype, "_type": "Value"}, "length": shape[0], "_type": "Sequence"}
        else:
            kind = _arrow(dtype)
            for _ in shape:
                kind = pa.list_(kind)
            feature = {"shape": list(shape), "dtype": dtype, "_type": f"Array{len(shape)}D"}
            metadata = {
                "ARROW:extension:name": f"datasets.features.features.Array{len(shape)}DExtensionType",
                "ARROW:extension:metadata": json.dumps([list(shape), dtype]),
            }
        fields.append(pa.field(column.name, kind, metadata=metadata))
        features[column.name] = feature
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _arrow(dtype: str) -> pa.DataType:
    return pa.from_numpy_dtype(np.dtype(dtype))


def to_column(values: np.ndarray, column: Column, first: int, picture_name: str) -> pa.Array:
    """An array [rows, *shape] as the column of a table.

    Args:
        values: of the rows.
        column: its type.
        first: number of the first row within its episode, for the names of the pictures.
        picture_name: template over frame_index.
    """
    if column.dtype == "image":
        return pa.array(
            [
                {"bytes": _encoded(picture), "path": picture_name.format(frame_index=first + row)}
                for row, picture in enumerate(values)
            ],
            pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        )
    result = pa.array(np.ascontiguousarray(values).reshape(-1))
    shape = column.feature.shape
    if len(shape) == 1 and shape != (1,):
        return pa.FixedSizeListArray.from_arrays(result, shape[0])
    if len(shape) > 1:
        for axis in reversed(range(len(shape))):
            count = int(np.prod(values.shape[: axis + 1], dtype=np.int64))
            result = pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32) * shape[axis], result)
    return result


def _encoded(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(buffer, "PNG")
    return buffer.getvalue()
