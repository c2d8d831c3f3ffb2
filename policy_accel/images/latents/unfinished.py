"""Arrays that take hours: made a batch of rows at a time into files of a folder, and gone on with when begun again."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from policy_accel.errors import UserError
from policy_accel.files import explained, no_link, remove, replace_json
from policy_accel.parsing import read_record

_RECORD, _LOCK = "made_with.json", ".lock"


@contextmanager
def unfinished(folder: Path, made_with: Mapping[str, str]) -> Iterator[None]:
    """Make a folder for this process alone, or go on with the one that is there; it is removed when the block ends
    without an error.

    Args:
        folder: of the files.
        made_with: all that the rows follow from, by the name that a user knows it by.

    Raises:
        UserError: another process works in it, it is no such folder, or what it holds follows from something else.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / _RECORD).is_file() and any(path.name != _LOCK for path in folder.iterdir()):
            raise UserError(f"{folder}: is in the way of what is unfinished; remove it or choose another path.")
        with open(folder / _LOCK, "a", opener=no_link) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"{folder}: another process works on it; wait for it, or choose another path."
                ) from error
            if (folder / _RECORD).is_file():
                before = read_record(folder / _RECORD, "remove the folder")
                if other := [name for name in made_with if before.get(name) != made_with[name]]:
                    raise UserError(
                        f"{folder}: holds what was begun with another {other[0]} ({before.get(other[0])}, now "
                        f"{made_with[other[0]]}); give the same to go on, or remove the folder."
                    )
            else:
                replace_json(folder / _RECORD, dict(made_with))
            yield
            remove(folder)


def made_rows(file: Path, shape: tuple[int, ...], dtype: np.dtype, batch_size: int) -> int:
    """Rows of an array of a shape that a file holds for certain, whole batches: the last one may not be on the disk."""
    size = file.stat().st_size if file.is_file() else 0
    rows = min(size // (dtype.itemsize * int(np.prod(shape[1:]))), shape[0])
    return max(0, (rows - 1) // batch_size * batch_size)


def make_rows(
    file: Path,
    shape: tuple[int, ...],
    dtype: np.dtype,
    make: Callable[[slice], np.ndarray],
    *,
    batch_size: int,
    advance: Callable[[int], None],
) -> np.ndarray:
    """The array of a shape whose rows `make(slice)` gives, mapped from a file; begins behind its `made_rows`.

    Args:
        file: is appended to.
        shape, dtype: of the whole array.
        make: rows of a batch, of the type.
        batch_size: rows at a time.
        advance: is told how many more are made.
    """
    begin = made_rows(file, shape, dtype, batch_size)
    with explained(file), open(file, "ab", opener=no_link) as stream:
        stream.truncate(begin * dtype.itemsize * int(np.prod(shape[1:])))
        for first in range(begin, shape[0], batch_size):
            rows = make(slice(first, min(first + batch_size, shape[0])))
            stream.write(np.ascontiguousarray(rows, dtype).data)
            stream.flush()
            os.fsync(stream.fileno())
            advance(len(rows))
    return np.memmap(file, dtype, "r", shape=shape)
