"""Arrays inside an NPZ (a zip of .npy files, NumPy Enhancement Proposal 1), read and written row by row."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from policy_accel.errors import UserError

_SKIP_BYTES = 1 << 20
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError)


def damaged(path: Path | str, name: str, error: Exception | str) -> UserError:
    """One sentence for a member that cannot be decoded."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return UserError(f"{path}: {name} is damaged ({reason}); copy or download the file again.")


class Member:
    """One array of an NPZ: [N, ...], read in order; going back starts it anew.

    Args:
        archive: the open zip, which the caller closes.
        name: of the array, without .npy.

    Raises:
        UserError: damaged, or Python objects, which would have to be unpickled.
    """

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.archive, self.name, self.source = archive, name, str(archive.filename)
        self._file: IO[bytes] | None = None
        self._row = 0
        self._last: tuple[int, int, np.ndarray] | None = None
        self._whole: np.ndarray | None = None
        try:
            with archive.open(f"{name}.npy") as file:
                self.shape, self._columns_first, self.dtype = _read_header(file)
        except _BROKEN as error:
            raise damaged(self.source, name, error) from error
        if self.dtype.hasobject:
            raise UserError(
                f"{self.source}: {name} holds Python objects, which are never unpickled; save it as numbers."
            )

    @property
    def step_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def rows(self, begin: int, end: int) -> np.ndarray:
        """Rows [begin, end), not to be written to.

        Raises:
            UserError: damaged or truncated.
        """
        if self._columns_first:
            return self.whole()[begin:end]
        if self._last is None or self._last[:2] != (begin, end):
            try:
                self._last = begin, end, self._read(begin, end)
            except _BROKEN as error:
                raise damaged(self.source, self.name, error) from error
        return self._last[2]

    def whole(self) -> np.ndarray:
        """The array; kept when it is stored column by column, which cannot be read row by row."""
        if self._whole is None:
            try:
                with self.archive.open(f"{self.name}.npy") as file:
                    values = np.lib.format.read_array(file, allow_pickle=False)
            except _BROKEN as error:
                raise damaged(self.source, self.name, error) from error
            if not self._columns_first:
                return values
            self._whole = values
        return self._whole

    def _read(self, begin: int, end: int) -> np.ndarray:
        if self._file is None or begin < self._row:
            self.close()
            self._file = self.archive.open(f"{self.name}.npy")
            _read_header(self._file)
            self._row = 0
        skipped = (begin - self._row) * self.step_bytes
        while skipped:
            skipped -= len(_exactly(self._file, min(skipped, _SKIP_BYTES)))
        content = _exactly(self._file, (end - begin) * self.step_bytes)
        self._row = end
        return np.frombuffer(content, self.dtype).reshape(end - begin, *self.shape[1:])

    def close(self) -> None:
        """Let go of the place in the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _exactly(file: IO[bytes], count: int) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise EOFError(f"ends {count - len(content)} bytes early")
    return content


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"npy version {version[0]}.{version[1]}")


def entry(name: str, *, compressed: bool) -> zipfile.ZipInfo:
    """A member of a zip with a fixed date, so that equal data give equal bytes."""
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    return info


@contextmanager
def writing(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype, *, compressed: bool = False
) -> Iterator[IO[bytes]]:
    """Begin an array [N, ...]; the caller writes its rows as bytes, in order."""
    with archive.open(entry(f"{name}.npy", compressed=compressed), "w", force_zip64=True) as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield file
