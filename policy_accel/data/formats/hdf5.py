"""Opening HDF5 files and reading their arrays, with the errors of h5py in one sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policy_accel.data.formats.recognise import is_hdf5
from policy_accel.errors import UserError
from policy_accel.files import explain_os_error

if TYPE_CHECKING:
    import h5py  # NPZ has the functions on values in common, and needs no HDF5

_METADATA_CACHE = 2 * 2**20  # bytes


def open_hdf5(path: Path) -> h5py.File:
    """Open a file for reading.

    Raises:
        UserError: missing, no permission, truncated, damaged.
    """
    import h5py

    try:
        with path.open("rb"):
            pass
        file = h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        if error.errno is not None and not is_hdf5(path):
            raise explain_os_error(error, path, "read") from error
        raise damaged(path, error) from error
    # A file of thousands of demonstrations has so many objects that HDF5's own cache of their headers, which may grow
    # to 32 MB and takes several times that with its overhead, would be the largest part of a conversion's memory.
    limits = file.id.get_mdc_config()
    limits.set_initial_size, limits.initial_size = True, _METADATA_CACHE // 2
    limits.min_size, limits.max_size = _METADATA_CACHE // 2, _METADATA_CACHE
    file.id.set_mdc_config(limits)
    return file


def damaged(path: Path | str, error: Exception, name: str = "") -> UserError:
    """One sentence for what h5py raises on a damaged file, or on an array of it."""
    what = f"{name} in the HDF5 file" if name else "the HDF5 file"
    return UserError(f"{path}: {what} is truncated or damaged ({_reason(error)}); copy or download the file again.")


def _reason(error: Exception) -> str:
    text = (str(error).strip("'\" \n") or type(error).__name__).splitlines()[0]
    inner = re.search(r"\((.*)\)", text)
    return (inner.group(1) if inner else text).rstrip(".")


def datasets(group: h5py.Group, prefix: str = "") -> dict[str, h5py.Dataset]:
    """Every array below a group: its path -> itself, in the order of the file."""
    import h5py

    found: dict[str, h5py.Dataset] = {}
    for name, item in group.items():
        if isinstance(item, h5py.Dataset):
            found[prefix + name] = item
        elif isinstance(item, h5py.Group):
            found.update(datasets(item, f"{prefix}{name}/"))
    return found


def native(dtype: np.dtype) -> np.dtype:
    """The dtype in the byte order of this machine."""
    return dtype.newbyteorder("=")


def attribute(value: Any) -> Any:
    """An attribute as JSON knows it: text, number, truth value or list."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return [attribute(item) for item in value.tolist()] if value.ndim else attribute(value.item())
    return value.item() if isinstance(value, np.generic) else value


def json_object(path: Path | str, name: str, text: Any) -> dict[str, Any]:
    """A JSON object that is kept in an attribute as text.

    Raises:
        UserError: it is none.
    """
    try:
        value = json.loads(text)
        if isinstance(value, dict):
            return value
    except (TypeError, ValueError):
        pass
    raise UserError(f"{path}: the attribute {name} is not a JSON object ({str(text)[:40]!r}); record the file again.")


def explain_write(error: Exception) -> OSError | Exception:
    """What h5py raises in writing, with the error number of the system where the message has it."""
    found = re.search(r"errno = (\d+)", str(error))
    return OSError(int(found.group(1)), str(error)) if found else error
