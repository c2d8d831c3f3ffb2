"""Decoded image files kept as one array, which is mapped into memory when the set is read again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.images.decode import decode, look
from policy_accel.data.images.image_set import ImageSet
from policy_accel.data.images.latents import latent
from policy_accel.data.images.layout import Layout
from policy_accel.data.tree import Tree
from policy_accel.errors import UserError
from policy_accel.files import new_path
from policy_accel.progress import Progress

_VERSION = 1  # counted up when the same files would be decoded to other arrays
_PIECE = 256  # files decoded together
_ARRAY, _DONE = "images.npy", "images.json"


def default_cache() -> Path:
    """$XDG_CACHE_HOME or ~/.cache, and policy_accel/images below it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "policy_accel" / "images"


def read_cached(tree: Tree, layout: Layout, source: str, *, resolution: int | None, cache_dir: Path | None) -> ImageSet:
    """Decode the files of a part, or find them decoded; the array is memory-mapped either way.

    The key is made of path, name, size and time of every file, and the resolution. The labels are not in the cache.

    Raises:
        UserError: a file cannot be decoded, sizes differ, the disk is full.
    """
    key = _key(tree, layout, resolution)
    folder = (cache_dir or default_cache()) / key
    images = _load(folder, len(layout.names))
    if images is None:
        if folder.exists():
            print(f"{folder}: is damaged and is made again.", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
        _fill(folder, tree, layout, resolution)
        images = _load(folder, len(layout.names))
        if images is None:
            raise UserError(f"{folder}: was written and cannot be read again; check the disk.")
    return ImageSet(images, layout.labels, layout.classes, source, key=f"{key} {_label_digest(layout)}")


def _key(tree: Tree, layout: Layout, resolution: int | None) -> str:
    digest = hashlib.sha256(f"{_VERSION} {tree.path.resolve()} {resolution}".encode())
    for name in layout.names:
        digest.update(f"\n{tree.stamp(name)}".encode())
    return digest.hexdigest()[:32]


def _label_digest(layout: Layout) -> str:
    labels = b"" if layout.labels is None else layout.labels.tobytes()
    return hashlib.sha256(repr(layout.classes).encode() + labels).hexdigest()[:32]


def _load(folder: Path, count: int) -> np.ndarray | None:
    """The mapped array, or None when it is not there whole."""
    try:
        described = json.loads((folder / _DONE).read_text())
        images = np.load(folder / _ARRAY, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return images if [list(images.shape), images.dtype.str] == described and len(images) == count else None


def _fill(folder: Path, tree: Tree, layout: Layout, resolution: int | None) -> None:
    shape, kind, read = (_latents if layout.latents else _pictures)(tree, layout, resolution)
    try:
        with new_path(folder) as temporary:
            temporary.mkdir()
            described = {"descr": kind.str, "fortran_order": False, "shape": (len(layout.names), *shape)}
            with (temporary / _ARRAY).open("wb") as file:  # a mapped file would end the process when the disk is full
                np.lib.format.write_array_header_1_0(file, described)
                for _, values in _in_pieces("decode", read, layout.names):
                    file.write(np.stack(values).tobytes())
            (temporary / _DONE).write_text(json.dumps([described["shape"], kind.str]))
    except UserError:
        if not (folder / _DONE).exists():  # otherwise another process was faster
            raise


Plan = tuple[tuple[int, ...], np.dtype, Callable[[str], np.ndarray]]


def _pictures(tree: Tree, layout: Layout, resolution: int | None) -> Plan:
    """Shape [C, H, W], uint8 and the decoder, after a look at the header of every file."""
    first: tuple[str, int, int] | None = None
    wanted = 1

    def size(name: str) -> tuple[int, int, int]:
        return look(tree.open(name), f"{tree.path}/{name}")

    for begin, headers in _in_pieces("sizes", size, layout.names):
        for name, (channels, height, width) in zip(layout.names[begin:], headers, strict=False):
            wanted = max(wanted, channels)
            first = first or (name, height, width)
            if resolution is None and (height, width) != first[1:]:
                raise UserError(
                    f"{tree.path}: {first[0]} is {first[2]} x {first[1]} and {name} {width} x {height} pixels; "
                    "give task.resolution=SIZE to cut and resize all to one size."
                )
    assert first is not None
    height, width = (resolution, resolution) if resolution else first[1:]

    def read(name: str) -> np.ndarray:
        return decode(tree.read(name), f"{tree.path}/{name}", channels=wanted, resolution=resolution)

    return (wanted, height, width), np.dtype(np.uint8), read


def _latents(tree: Tree, layout: Layout, resolution: int | None) -> Plan:
    """Shape [C, H, W] and type of the first file, and a reader that wants all others alike."""

    def load(name: str) -> np.ndarray:
        return latent(tree.read(name), f"{tree.path}/{name}")

    first = load(layout.names[0])

    def read(name: str) -> np.ndarray:
        values = load(name)
        if (values.shape, values.dtype) != (first.shape, first.dtype):
            raise UserError(
                f"{tree.path}: {layout.names[0]} is {first.dtype} {list(first.shape)} and {name} {values.dtype} "
                f"{list(values.shape)}; encode all latents the same way."
            )
        return values

    return first.shape, first.dtype, read


def _in_pieces(what: str, function: Callable[[str], Any], names: tuple[str, ...]) -> Iterator[tuple[int, list[Any]]]:
    """Apply `function` to the names by threads; yields the place of a piece's first name and the piece's results."""
    progress = Progress(what, len(names), unit="image")
    try:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for begin in range(0, len(names), _PIECE):
                yield begin, list(pool.map(function, names[begin : begin + _PIECE]))
                progress.to(min(begin + _PIECE, len(names)))
    finally:
        progress.close()
