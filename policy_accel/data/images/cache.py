"""Decoded image files kept as one array, which is mapped into memory when the set is read again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from policy_accel.data.formats.base import decoding
from policy_accel.data.images.decode import decode, fitted
from policy_accel.data.images.image_set import ImageSet
from policy_accel.data.images.listing import Listing
from policy_accel.errors import UserError
from policy_accel.files import new_path
from policy_accel.progress import Progress

_VERSION = 2  # counted up when the same files would be decoded to other arrays
_PIECE = 64  # images decoded together
_ARRAY, _DONE = "images.bin", "images.json"


def default_cache() -> Path:
    """$XDG_CACHE_HOME or ~/.cache, and policy_accel/images below it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "policy_accel" / "images"


def read_cached(listing: Listing, source: str, resolution: int | None, cache_dir: Path, skip_bad: bool) -> ImageSet:
    """Decode the images of a part, or find them decoded; the array is memory-mapped either way.

    The key is made of path, name, size and time of every file, and the resolution. The labels are not in the cache.

    Raises:
        UserError: an image cannot be decoded and `skip_bad` is False, none can, sizes differ, the disk is full.
    """
    _refuse(listing.faults, skip_bad)
    digest = hashlib.sha256(f"{_VERSION} {Path(listing.source).resolve()} {resolution}".encode())
    for item in listing.items:
        file = listing.file(item.name)
        found = file.stat() if file.exists() else None  # else it is said when it is read
        digest.update(f"\n{item.name} {found and f'{found.st_size} {found.st_mtime_ns}'}".encode())
    key = digest.hexdigest()[:32]
    folder = cache_dir / key
    try:
        images, made = _load(folder)
    except (OSError, ValueError, TypeError, KeyError):
        if folder.exists():
            print(f"{folder}: is damaged and is made again.", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
        _fill(folder, listing, resolution, skip_bad)
        with decoding(folder, "the cache"):
            images, made = _load(folder)
    faults = list(made["faults"].values())
    _refuse(faults, skip_bad)
    kept = [item.label for place, item in enumerate(listing.items) if str(place) not in made["faults"]]
    labels = np.array(kept, np.int64) if listing.classes else None
    told = hashlib.sha256(repr(listing.classes).encode() + (b"" if labels is None else labels.tobytes())).hexdigest()
    done = [f"{count} images {what}, such as {name}." for what, (count, name) in made["done"].items()]
    remarks, skipped = (*listing.remarks, *done), (*listing.faults, *faults)
    return ImageSet(images, labels, listing.classes, source, f"{key} {told[:32]}", remarks, skipped)


def _refuse(faults: Sequence[str], skip_bad: bool) -> None:
    if faults and not skip_bad:
        raise UserError(f"{faults[0].rstrip('.')}, or skip such images with task.skip_bad_images=true.")


def _load(folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    made = json.loads((folder / _DONE).read_text())
    return np.memmap(folder / _ARRAY, made["dtype"], "r", shape=tuple(made["shape"])), made


def _fill(folder: Path, listing: Listing, resolution: int | None, skip_bad: bool) -> None:
    try:
        with new_path(folder) as temporary:
            temporary.mkdir()
            with (temporary / _ARRAY).open("wb") as file:  # a mapped file would end the process when the disk is full
                made = _write(file, listing, resolution, skip_bad) or _write(file, listing, resolution, skip_bad, 3)
            (temporary / _DONE).write_text(json.dumps(made))
    except UserError:
        if not (folder / _DONE).exists():  # otherwise another process was faster
            raise


def _write(
    file: BinaryIO, listing: Listing, resolution: int | None, skip_bad: bool, channels: int = 0
) -> dict[str, Any] | None:
    """Decode all images in turn and write them; None when one has colour after grey ones, which have to become it."""
    names, source = [item.name for item in listing.items], listing.source
    faults: dict[int, str] = {}
    done: dict[str, tuple[int, str]] = {}
    first: tuple[str, np.ndarray] | None = None

    def one(name: str) -> tuple[np.ndarray | None, list[str]]:
        try:
            return decode(listing.read(name), f"{source}/{name}", resolution)
        except UserError as error:
            return None, [str(error)]

    file.seek(0)
    file.truncate()
    with closing(Progress("decode", len(names), unit="image")) as progress, ThreadPoolExecutor(8) as pool:
        for begin in range(0, len(names), _PIECE):
            piece = names[begin : begin + _PIECE]
            for place, (name, (image, said)) in enumerate(zip(piece, pool.map(one, piece), strict=True), begin):
                if image is None:
                    _refuse(said, skip_bad)
                    faults[place] = said[0]
                    continue
                done |= {what: (done.get(what, (0, ""))[0] + 1, done.get(what, (0, name))[1]) for what in said}
                first = first or (name, image)
                _check_alike(*first, name, image, source)
                if channels < len(image) and file.tell():
                    return None
                channels = channels or len(fitted(image[None], resolution, source)[0])
                file.write(image.repeat(channels // len(image), axis=0).tobytes())
            progress.to(begin + len(piece))
    if first is None:
        raise UserError(f"{source}: none of its {len(names)} images can be read, the first of them: {faults[0]}")
    shape = [len(names) - len(faults), channels, *first[1].shape[1:]]
    return {"shape": shape, "dtype": first[1].dtype.str, "faults": faults, "done": done}


def _check_alike(first: str, like: np.ndarray, name: str, image: np.ndarray, source: str) -> None:
    """Raise UserError unless an image has the size of the first, or a latent its type and shape."""
    begin = 1 if image.dtype == np.uint8 else 0
    if image.shape[begin:] != like.shape[begin:] or image.dtype != like.dtype:
        both = " and ".join(
            f"{file} is {some.dtype} {list(some.shape)}" for file, some in ((first, like), (name, image))
        )
        remedy = "give task.resolution=SIZE to cut and resize all images to one size, or encode all latents alike"
        raise UserError(f"{source}: {both}; {remedy}.")
