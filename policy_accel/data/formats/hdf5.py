"""Opening HDF5 files, and the one place where what they hold becomes objects, attributes, JSON and sentences."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policy_accel.errors import UserError
from policy_accel.files import open_regular

if TYPE_CHECKING:
    import h5py  # NPZ has the functions on values in common, and needs no HDF5

NOWHERE = "cannot be opened"
_METADATA_CACHE = 2 * 2**20  # bytes
_MOST_STEP = 2**30  # bytes of one step or one chunk, which are read at once
_MOST_ATTRIBUTE = 2**26  # bytes
_MOST_PACKED = 1100  # bytes that gzip and its kind pack into one


class Unusable(Exception):
    """Why something in a file cannot be used, in one sentence or, about an array, a phrase that follows its name."""


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn whatever h5py raises on damaged bytes into `Unusable`.

    Args:
        name: what the block reads.
    """
    try:
        yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError) as error:
        text = (str(error).strip("'\" \n") or type(error).__name__).splitlines()[0]
        inner = re.search(r"\((.*)\)", text)
        reason = (inner.group(1) if inner else text).rstrip(".")
        raise Unusable(f"{name} is truncated or damaged ({reason}); copy or download the file again.") from error


def open_hdf5(path: Path) -> h5py.File:
    """Open a file for reading.

    Raises:
        UserError: missing, no permission, truncated, damaged.
    """
    import h5py

    open_regular(path).close()
    try:
        with reading("the HDF5 file"):
            file = h5py.File(path, "r", locking="best-effort")
    except Unusable as error:
        raise UserError(f"{path}: {error}") from error
    # A file of thousands of demonstrations has so many objects that HDF5's own cache of their headers, which may grow
    # to 32 MB and takes several times that with its overhead, would be the largest part of a conversion's memory.
    limits = file.id.get_mdc_config()
    limits.set_initial_size, limits.initial_size = True, _METADATA_CACHE // 2
    limits.min_size, limits.max_size = _METADATA_CACHE // 2, _METADATA_CACHE
    file.id.set_mdc_config(limits)
    return file


def member(group: h5py.Group, path: str) -> Any:
    """The group or array at a path below a group or, with a leading slash, its file; text says why there is none."""
    from h5py import h5o

    item = None
    with suppress(Unusable), reading(path):
        item = group.get(path)
    if item is not None and h5o.get_info(item.id).fileno != h5o.get_info(group.id).fileno:
        return "lies in another file, which is not read"
    return NOWHERE if item is None else item


def datasets(group: h5py.Group, without: Collection[str] = ()) -> dict[str, h5py.Dataset | str]:
    """Every array below a group by its path, in the order of the file, or why it cannot be used.

    Args:
        group: where to look.
        without: paths that are not opened.
    """
    import h5py

    found: dict[str, h5py.Dataset | str] = {}
    waiting: list[tuple[str, Any]] = [("", group)]
    met = set()
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, h5py.Group) and item not in met:
            met.add(item)
            names = {f"{path}/{name}".lstrip("/"): name for name in item}
            below = [(place, member(item, name)) for place, name in names.items() if place not in without]
            waiting += reversed(below)
        elif isinstance(item, h5py.Dataset | str):
            found[path] = item
    return found


def check_stored(array: h5py.Dataset) -> None:
    """Refuse an array that is not in its file, or cannot be: hostile and damaged files declare anything.

    Raises:
        Unusable: it holds nothing, is kept in other files, or is larger than the file can be.
    """
    from h5py import h5d

    if array.shape is None:
        raise Unusable("holds nothing")
    try:
        itemsize = array.dtype.itemsize
    except TypeError:
        raise Unusable("holds values of a kind that NumPy does not have") from None
    made = array.id.get_create_plist()
    if made.get_layout() == h5d.VIRTUAL or made.get_external_count():
        raise Unusable("keeps its values in other files, which are not read")
    step = math.prod(array.shape[1:]) * itemsize
    chunk = math.prod(array.chunks or (0,)) * itemsize
    size = step * (array.shape[0] if array.shape else 1)
    if max(step, chunk) > _MOST_STEP or (size > _MOST_STEP and size > _MOST_PACKED * array.file.id.get_filesize()):
        raise Unusable(f"says that it holds {size / 1e9:,.1f} GB, which the file does not")


def unwritten(array: h5py.Dataset) -> bool:
    """Whether some of an array was never written, which reads as the fill value."""
    if array.chunks is None:
        return bool(array.size) and array.id.get_storage_size() == 0
    chunks = [-(-side // chunk) for side, chunk in zip(array.shape, array.chunks, strict=True)]
    return bool(array.id.get_num_chunks() < math.prod(chunks))


def native(dtype: np.dtype) -> np.dtype:
    """The dtype in the byte order of this machine."""
    return dtype.newbyteorder("=")


def attribute(value: Any) -> Any:
    """An attribute as JSON knows it: text, number, truth value, null or list; the text of what is none of these."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | tuple):
        return [attribute(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value).encode("utf-8", "replace").decode()


def attributes(group: h5py.Group, names: Collection[str] | None = None) -> dict[str, Any]:
    """Attributes of a group (None: all), see `attribute`; those that are not there or cannot be read are left out."""
    found = {}
    with suppress(Unusable), reading("the names"):
        for name in list(group.attrs) if names is None else names:
            with suppress(Unusable), reading(name):
                if group.attrs.get_id(name).get_storage_size() < _MOST_ATTRIBUTE:
                    found[name] = attribute(group.attrs[name])
    return found


def json_object(where: Path | str, name: str, text: Any) -> dict[str, Any]:
    """A JSON object that is kept as text, in an attribute or a file.

    Raises:
        UserError: it is none.
    """
    try:
        value = json.loads(text)
        if isinstance(value, dict):
            return value
    except (TypeError, ValueError, RecursionError):
        pass
    raise UserError(f"{where}: {name} is not a JSON object ({str(text)[:40]!r}); record the file again.")


def explain_write(error: Exception) -> OSError | Exception:
    """What h5py raises in writing, with the error number of the system where the message has it."""
    found = re.search(r"errno = (\d+)", str(error))
    return OSError(int(found.group(1)), str(error)) if found else error


SAY_WHERE = "Say where the data lies: task.layout=FILE.yaml, or --layout FILE.yaml (docs/hdf5.md)."


def unknown(file: h5py.File) -> str:
    """What a file that nobody knows how to read holds, the beginning of a sentence."""
    arrays = datasets(file)
    shown = [
        f"{path} {list(item.shape or ())} {item.dtype}" if not isinstance(item, str) else path
        for path, item in list(arrays.items())[:5]
    ]
    more = f" and {len(arrays) - 5} more arrays" if len(arrays) > 5 else ""
    return (
        f"not a robomimic file: found {', '.join(shown) or 'nothing'}{more}; expected demonstrations as "
        "data/demo_0/actions, or one episode as action and observations."
    )


def by_number(name: str) -> list[str | int]:
    """A key to sort names by, in which demo_2 comes before demo_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
