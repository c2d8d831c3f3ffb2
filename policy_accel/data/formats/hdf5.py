"""HDF5 files: opening them, and what their arrays and attributes are, whatever damaged or hostile bytes declare."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from PIL import Image

from policy_accel.data.formats.base import Feature, as_json, decoding
from policy_accel.data.tree import by_number
from policy_accel.files import open_regular

NOWHERE = "is missing or cannot be opened"
_LARGEST = 2**30  # bytes of one step or one chunk, which are read at once
_MOST_PACKED = 1100  # bytes that gzip and its kind pack into one


class Series(NamedTuple):
    """An array with rows of steps: a step's value, and how many rows it has more than there are steps."""

    feature: Feature
    more: int

    def __str__(self) -> str:
        rows = f" and has {self.more:+d} rows against the steps" if self.more else ""
        return f"is {list(self.feature.shape)} {self.feature.dtype} a step{rows}"


def open_hdf5(path: Path) -> h5py.File:
    """Open a file for reading; UserError where it is missing, forbidden, truncated or damaged."""
    open_regular(path).close()
    with decoding(path, "the HDF5 file"):
        file = h5py.File(path, "r", locking="best-effort")
        # HDF5's own cache of headers, of 32 MB, would be most of the memory that a conversion of many episodes takes.
        cache = file.id.get_mdc_config()
        cache.set_initial_size, cache.initial_size, cache.min_size, cache.max_size = True, 2**20, 2**20, 2**21
        file.id.set_mdc_config(cache)
    return file


def member(group: h5py.Group, path: str) -> Any:
    """The group or array at a path below a group or, with a leading slash, its file; text says why there is none."""
    try:
        item = group[path]
        outside = h5py.h5o.get_info(item.id).fileno != h5py.h5o.get_info(group.id).fileno
    except Exception:  # h5py raises whatever it likes on damaged bytes
        return NOWHERE
    return "lies in another file, which is not read" if outside else item


def arrays_below(group: h5py.Group, without: Collection[str] = ()) -> dict[str, Any]:
    """Every array below a group by its path, or why it cannot be used; what is at a path of `without` is not opened."""
    links: dict[str, Any] = {}
    group.visititems_links(links.__setitem__)
    found = {path: member(group, path) for path in links if path not in without}
    for path, item in found.items():
        if isinstance(item, h5py.Group) and not isinstance(links[path], h5py.HardLink):
            found[path] = "is a link to a group, which is not followed"
    return {path: item for path, item in found.items() if isinstance(item, h5py.Dataset | str)}


def matching(group: h5py.Group, pattern: str, prefix: str = "") -> Iterator[str]:
    """Paths below a group that match a pattern as "data/demo_*", by number; an array only for a last part not "*"."""
    first, _, rest = pattern.strip("/").partition("/")
    if not first:
        yield prefix or "/"
        return
    for name in sorted(group, key=by_number):
        item = member(group, name) if fnmatchcase(name, first) else None
        if isinstance(item, h5py.Group) or (item is not None and not rest and first != "*"):
            yield from matching(item, rest, f"{prefix}/{name}".lstrip("/"))


def series(item: Any, steps: int) -> Series | str:
    """What `member` found in an episode of so many steps, or why it cannot be used. Picture files are frames."""
    if not isinstance(item, h5py.Dataset):
        return item if isinstance(item, str) else "is a group"
    try:
        shape, dtype, made = item.shape, item.dtype, item.id.get_create_plist()
        if made.get_layout() == h5py.h5d.VIRTUAL or made.get_external_count():
            return "keeps its values in other files, which are not read"
        size, step, chunk = (dtype.itemsize * math.prod(sides) for sides in (shape, shape[1:], item.chunks or (0,)))
        if max(step, chunk) > _LARGEST or size > max(_LARGEST, _MOST_PACKED * item.file.id.get_filesize()):
            return f"says that it holds {size / 1e9:,.1f} GB, which the file does not"
        chunks = math.prod(-(-side // of) for side, of in zip(shape, item.chunks or shape, strict=True))
        if item.id.get_num_chunks() < chunks if item.chunks else item.size and not item.id.get_storage_size():
            return "was never written, or not all of it"
        own, feature = dtype.kind in "OS", None  # whether a row has its own length, or zeros behind it, as ALOHA's
        if size and len(shape) == (1 if own else 2) and (own or dtype == np.uint8):
            first = bytes(item[0])
            feature = _picture(first)[1] if first.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) else None
    except Exception:  # as above, and so does Pillow
        return "is empty or damaged"
    if feature is None and shape and dtype.kind in "biuf":
        feature = Feature(shape[1:], dtype.newbyteorder("="))
    return Series(feature, shape[0] - steps) if feature else f"is no series of numbers ({list(shape)} {dtype})"


def _picture(file: Any) -> tuple[Image.Image, Feature]:
    """A picture, which is decoded when it is used, and what its frame [H, W, C] will be."""
    picture: Image.Image = Image.open(io.BytesIO(bytes(file)), formats=("JPEG", "PNG"))
    if picture.mode not in ("L", "RGB", "RGBA", "I;16"):
        picture = picture.convert("RGB")
    channels, bits = {"RGB": 3, "RGBA": 4}.get(picture.mode, 1), 16 if picture.mode == "I;16" else 8
    return picture, Feature((picture.height, picture.width, channels), np.dtype(f"uint{bits}"))


def decoded(rows: np.ndarray, feature: Feature) -> np.ndarray:
    """Rows of an array as [N, *shape], pictures decoded; ValueError where one is of another size."""
    if rows.dtype.kind in "biuf" and rows.ndim > len(feature.shape):
        return rows.astype(feature.dtype, copy=False)
    frames = np.empty((len(rows), *feature.shape), feature.dtype)
    for frame, row in zip(frames, rows, strict=True):
        picture, found = _picture(row)
        if found != feature:
            raise ValueError(f"a picture of another size, {picture.size}, or kind")
        frame[...] = np.asarray(picture).reshape(feature.shape)
    return frames


def attributes(group: h5py.Group) -> dict[str, Any]:
    """All attributes of a group, see `as_json`; those that cannot be read are left out."""
    found = {}
    with suppress(Exception):
        for name in group.attrs:
            with suppress(Exception):
                found[name] = as_json(group.attrs[name])
    return found
