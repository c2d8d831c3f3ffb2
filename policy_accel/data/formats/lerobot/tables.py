"""Parquet as LeRobot writes it: columns to arrays, rows read in order in bounded memory, and the derived columns.

Columns are those of Hugging Face `datasets`: a number is a value, a vector a list, more axes nested lists (extension
types Array2D to Array5D), a picture a struct of encoded bytes and a path.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from policy_accel.data.formats.lerobot.layout import DERIVED, Column
from policy_accel.errors import UserError
from policy_accel.files import explain_os_error, open_regular
from policy_accel.memory import check_fits

_BATCH_ROWS, _BATCH_PICTURES = 4096, 32
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@contextmanager
def parquet_file(path: Path) -> Iterator[pq.ParquetFile]:
    """An open parquet file; what is wrong with it, also while it is read, is one sentence.

    Raises:
        UserError: missing, cut off, damaged.
    """
    with explained_table(path), _open(path) as file:
        yield file


def _open(path: Path) -> pq.ParquetFile:
    open_regular(path).close()
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20)


@contextmanager
def explained_table(path: Path) -> Iterator[None]:
    """Turn what pyarrow says about the file `path` into one sentence."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise explain_os_error(error, path, "read") from error
        said = str(error).split("\n")[0][:200].rstrip(". ")
        raise UserError(f"{path}: is cut off or damaged ({said}); copy or download it again.") from error


def require_columns(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise UserError when the table at `path` lacks a column."""
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(
            f"{path}: has no column '{missing[0]}'; it has {', '.join(found)[:300]}: correct info.json or copy the "
            "data set again."
        )


def to_array(column: pa.Array, wanted: Column, where: str, first: int = 0) -> np.ndarray:
    """A column of a table as [rows, *shape] of the dtype wanted.

    Args:
        column: some rows of it.
        wanted: what it must be.
        where: the file, for messages.
        first: the row of the file that it begins with.

    Raises:
        UserError: values missing, rows of another shape, another type than can be cast without loss.
    """
    if wanted.dtype == "image":
        return _pictures(column, wanted, where, first)
    values, size = column, 1
    while True:
        if values.null_count:
            raise UserError(f"{where}: column '{wanted.name}' has empty values; record them or leave the episode out.")
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        elif _is_list(values.type):
            sizes = pc.list_value_length(values).to_numpy(zero_copy_only=False)
            if np.any(odd := sizes != sizes[:1]):
                row = first + int(np.argmax(odd)) // size
                raise UserError(
                    f"{where}: column '{wanted.name}' is ragged: row {row} has {sizes[np.argmax(odd)]} numbers and row "
                    f"{first} has {sizes[0]}; record or remove that row."
                )
            size *= int(sizes[0]) if len(sizes) else 1
            values = values.flatten()
        else:
            break
    dtype, shape = _numpy(values.type), wanted.feature.shape
    if dtype is None or not np.can_cast(dtype, wanted.feature.dtype, "safe"):
        raise UserError(
            f"{where}: column '{wanted.name}' holds {values.type}, and other files {wanted.feature.dtype}; store one "
            "type."
        )
    if size != np.prod(shape, dtype=object) and len(column):
        raise UserError(
            f"{where}: column '{wanted.name}' has {size} numbers a row, and info.json says shape {list(shape)}; "
            "correct the shape there."
        )
    array: np.ndarray = values.to_numpy(zero_copy_only=False).astype(wanted.feature.dtype, copy=False)
    return array.reshape(len(column), *shape)


def _is_list(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType)


def _numpy(kind: pa.DataType) -> np.dtype | None:
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return np.dtype(kind.to_pandas_dtype()) if numeric else None


def stored_dtype(kind: pa.DataType) -> str:
    """What a column of this type holds: a NumPy dtype, "image" (bytes and path), or "" for anything else."""
    while isinstance(kind, pa.BaseExtensionType) or _is_list(kind):
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind.value_type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return "image"
    return str(_numpy(kind) or "")


def _pictures(column: pa.Array, wanted: Column, where: str, first: int) -> np.ndarray:
    height, width, channels = wanted.feature.shape
    if stored_dtype(column.type) != "image":
        raise UserError(f"{where}: column '{wanted.name}' holds {column.type}, not pictures; leave that episode out.")
    check_fits(len(column) * height * width * channels, f"{where}: pictures of {height}x{width} pixels")
    result = np.empty((len(column), height, width, channels), np.uint8)
    for row, content in enumerate(column.field("bytes")):
        at = f"{where}: column '{wanted.name}' has"
        if not content.is_valid:
            raise UserError(
                f"{at} no picture in row {first + row}, only a path; embed the pictures in the table as "
                "`LeRobotDataset` does."
            )
        try:
            with Image.open(io.BytesIO(content.as_py())) as image:
                if image.size != (width, height):
                    raise UserError(
                        f"{at} a picture of {image.height}x{image.width} pixels in row {first + row}, and info.json "
                        f"says {height}x{width}; correct the shape there."
                    )
                mode = _MODES[channels]
                pixels = np.asarray(image if image.mode == mode else image.convert(mode))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(
                f"{at} a picture that cannot be decoded in row {first + row}; leave that episode out."
            ) from error
        result[row] = pixels.reshape(height, width, channels)
    return result


def derived_columns(file: pq.ParquetFile, path: Path) -> dict[str, np.ndarray]:
    """The derived columns that a file has, name -> [rows].

    Raises:
        UserError: one of them holds no numbers, or more than fit into the memory.
    """
    names = [name for name in DERIVED if name in file.schema_arrow.names]
    check_fits(8 * len(names) * file.metadata.num_rows, str(path), stored=path.stat().st_size)
    table = file.read(columns=names).combine_chunks()
    for name in names:
        if table[name].null_count or _numpy(table[name].type) is None:
            raise UserError(
                f"{path}: column '{name}' holds {table[name].type} or empty values, not numbers; correct it."
            )
    return {name: table[name].to_numpy() for name in names}


class RowCursor:
    """Reads runs of rows; asked for in order, no part of a file is decoded twice and only a batch is in memory."""

    def __init__(self) -> None:
        self._file: pq.ParquetFile | None = None
        self._open_for: tuple[Path, list[str]] | None = None
        self._at, self._batch = 0, pa.RecordBatch.from_pylist([])  # its first row and the batch that is decoded

    def read(self, path: Path, columns: Sequence[Column], start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows [start, stop) of a file: LeRobot's name -> [stop - start, *shape].

        Raises:
            UserError: missing or damaged file, a column that it lacks, values of another shape.
        """
        names, row = [column.name for column in columns], start
        parts = {one.name: [np.empty((0, *one.feature.shape), one.feature.dtype)] for one in columns}
        with explained_table(path):
            if self._open_for != (path, names) or start < self._at:
                self._begin(path, columns, start)
            while row < stop:
                if row >= self._at + len(self._batch):
                    self._at += len(self._batch)
                    self._batch = next(self._batches, None)
                    if self._batch is None:
                        self.close()
                        raise UserError(f"{path}: ends before row {stop}; copy or download it again.")
                    continue
                batch = self._batch.slice(row - self._at, stop - row)
                for column in columns:
                    parts[column.name].append(to_array(batch.column(column.name), column, str(path), row))
                row += len(batch)
        return {name: np.concatenate(found) for name, found in parts.items()}

    def _begin(self, path: Path, columns: Sequence[Column], start: int) -> None:
        self.close()
        self._file = file = _open(path)
        names = [column.name for column in columns]
        require_columns(path, file.schema_arrow.names, names)
        groups = file.metadata.num_row_groups
        ends = np.cumsum([0, *(file.metadata.row_group(group).num_rows for group in range(groups))])
        first = int(np.searchsorted(ends, start, side="right")) - 1
        size = _BATCH_PICTURES if any(column.dtype == "image" for column in columns) else _BATCH_ROWS
        self._batches = file.iter_batches(size, row_groups=list(range(first, groups)), columns=names)
        self._at, self._batch = int(ends[first]), pa.RecordBatch.from_pylist([])
        self._open_for = path, names

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file = self._open_for = None
