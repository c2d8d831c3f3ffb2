"""Decoded image files kept as one array, which is mapped into memory when the set is read again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from policy_accel.data.images.arrays import latent
from policy_accel.data.images.decode import decode
from policy_accel.data.images.image_set import ImageSet
from policy_accel.data.images.listing import Listing, Part
from policy_accel.errors import UserError
from policy_accel.files import new_path
from policy_accel.progress import Progress

_VERSION = 2  # counted up when the same files would be decoded to other arrays
_PIECE_BYTES = 2**27  # of images decoded together
_ARRAY, _DONE = "images.bin", "images.json"


def default_cache() -> Path:
    """$XDG_CACHE_HOME or ~/.cache, and policy_accel/images below it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "policy_accel" / "images"


def read_cached(
    listing: Listing, part: Part, source: str, *, resolution: int | None, cache_dir: Path | None, skip_bad: bool
) -> ImageSet:
    """Decode the images of a part, or find them decoded; the array is memory-mapped either way.

    The key is made of path, name, size and time of every file, and the resolution. The labels are not in the cache.

    Raises:
        UserError: an image cannot be decoded and `skip_bad` is False, none can, sizes differ, the disk is full.
    """
    _refuse(part.faults, skip_bad)
    key = _key(listing, part, resolution)
    folder = (cache_dir or default_cache()) / key
    found = _load(folder)
    if found is None:
        if folder.exists():
            print(f"{folder}: is damaged and is made again.", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
        _fill(folder, listing, part, resolution, skip_bad)
        found = _load(folder)
        if found is None:
            raise UserError(f"{folder}: was written and cannot be read again; check the disk.")
    images, contents = found
    faults = list(contents.faults.values())
    _refuse(faults, skip_bad)
    kept = [place for place in range(len(part.names)) if str(place) not in contents.faults]
    remarks = [f"{count} images {what}, such as {name}." for what, (count, name) in contents.done.items()]
    return ImageSet(
        images,
        None if part.labels is None else part.labels[kept],
        part.classes,
        source,
        f"{key} {_label_digest(part)}",
        (*listing.remarks, *remarks),
        tuple(f"{fault}." for fault in (*part.faults, *faults)),
    )


@dataclass
class _Contents:
    """What is said beside the array: its shape and type, why images were left out, what was done to how many."""

    shape: list[int] = field(default_factory=list)
    dtype: str = "|u1"
    faults: dict[str, str] = field(default_factory=dict)
    done: dict[str, tuple[int, str]] = field(default_factory=dict)


def _refuse(faults: Sequence[str], skip_bad: bool) -> None:
    if faults and not skip_bad:
        raise UserError(f"{faults[0]}, or skip such images with task.skip_bad_images=true.")


def _key(listing: Listing, part: Part, resolution: int | None) -> str:
    digest = hashlib.sha256(f"{_VERSION} {Path(listing.source).resolve()} {resolution}".encode())
    for name in part.names:
        with suppress(UserError):  # of a file that is not there, which is said when it is read
            digest.update(f"\n{listing.stamp(name)}".encode())
    return digest.hexdigest()[:32]


def _label_digest(part: Part) -> str:
    labels = b"" if part.labels is None else part.labels.tobytes()
    return hashlib.sha256(repr(part.classes).encode() + labels).hexdigest()[:32]


def _load(folder: Path) -> tuple[np.ndarray, _Contents] | None:
    """The mapped array, or None when it is not there whole."""
    try:
        contents = _Contents(**json.loads((folder / _DONE).read_text()))
        images = np.memmap(folder / _ARRAY, contents.dtype, "r").reshape(contents.shape)
    except (OSError, ValueError, TypeError):
        return None
    return images, contents


def _fill(folder: Path, listing: Listing, part: Part, resolution: int | None, skip_bad: bool) -> None:
    def one(name: str) -> tuple[np.ndarray | None, list[str]]:
        where = f"{listing.source}/{name}"
        try:
            content = listing.read(name)
            return (latent(content, where), []) if listing.latents else decode(content, where, resolution)
        except UserError as error:
            return None, [str(error).rstrip(".")]

    try:
        with new_path(folder) as temporary:
            temporary.mkdir()
            with (temporary / _ARRAY).open("wb") as file:  # a mapped file would end the process when the disk is full
                contents = _write(file, one, part.names, listing.source, skip_bad)
            (temporary / _DONE).write_text(json.dumps(vars(contents)))
    except UserError:
        if not (folder / _DONE).exists():  # otherwise another process was faster
            raise


def _write(
    file: BinaryIO,
    one: Callable[[str], tuple[np.ndarray | None, list[str]]],
    names: Sequence[str],
    source: str,
    skip_bad: bool,
    *,
    colour: bool = False,
) -> _Contents:
    """Decode all names in turn and write them; grey becomes colour when any image has colour."""
    contents, first, begin, piece = _Contents(), None, 0, 8
    progress = Progress("decode", len(names), unit="image")
    with closing(progress), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while begin < len(names):
            good = []
            wanted = names[begin : begin + piece]
            for place, (name, (image, done)) in enumerate(zip(wanted, pool.map(one, wanted), strict=True), begin):
                if image is None:
                    _refuse(done, skip_bad)
                    contents.faults[str(place)] = done[0]
                    continue
                for what in done:
                    count, example = contents.done.get(what, (0, name))
                    contents.done[what] = (count + 1, example)
                first = first or (name, image)
                _check_alike(first, name, image, source)
                good.append(image)
            if not colour and any(image.dtype == np.uint8 and len(image) == 3 for image in good):
                colour = True
                if file.tell():  # grey ones were written
                    file.seek(0)
                    file.truncate()
                    return _write(file, one, names, source, skip_bad, colour=True)
            if good:
                alike = [image.repeat(3, 0) if colour and len(image) == 1 else image for image in good]
                file.write(np.stack(alike).tobytes())
                piece = max(8, min(256, _PIECE_BYTES // good[0].nbytes))
            begin += len(wanted)
            progress.to(begin)
    if first is None:
        raise UserError(
            f"{source}: none of its {len(names)} images can be read, the first of them: {contents.faults['0']}."
        )
    shape = first[1].shape
    contents.shape = [len(names) - len(contents.faults), 3 if colour else shape[0], *shape[1:]]
    contents.dtype = first[1].dtype.str
    return contents


def _check_alike(first: tuple[str, np.ndarray], name: str, image: np.ndarray, source: str) -> None:
    """Raise UserError unless an image has the size of the first, or a latent its type and shape."""
    like = first[1]
    if image.dtype != np.uint8 and (image.shape, image.dtype) != (like.shape, like.dtype):
        raise UserError(
            f"{source}: {first[0]} is {like.dtype} {list(like.shape)} and {name} {image.dtype} {list(image.shape)}; "
            "encode all latents the same way."
        )
    height, width = image.shape[1:]
    if image.shape[1:] != like.shape[1:]:
        raise UserError(
            f"{source}: {first[0]} is {like.shape[2]} x {like.shape[1]} and {name} {width} x {height} pixels; "
            "give task.resolution=SIZE to cut and resize all to one size."
        )
    check_square(source, image)


def check_square(source: str, image: np.ndarray) -> None:
    """Raise UserError unless an image [..., H, W], which is no latent, is square."""
    height, width = image.shape[-2:]
    if image.dtype == np.uint8 and height != width:
        raise UserError(
            f"{source}: the images are {width} x {height} pixels, not square; give task.resolution=SIZE to cut "
            "out the middle square and resize it."
        )
