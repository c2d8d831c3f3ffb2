"""One function that reads image sets, whatever their form, which is recognised by content; decoded files are kept as
one array, which is mapped into memory when the set is read again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.download import shipped_path
from policy_accel.data.formats.base import decoding
from policy_accel.data.images.arrays import cifar_form, mnist_form, npy_form, npz_form
from policy_accel.data.images.decode import decode, fitted
from policy_accel.data.images.files import files_form, parquet_form
from policy_accel.data.images.image_set import Form, ImageSet, Listing, Split, part_of, split_word
from policy_accel.data.tree import Tree, open_tree
from policy_accel.errors import UserError
from policy_accel.files import new_path
from policy_accel.progress import Progress

KNOWN_FORMS = (
    "known are folders of images, by class or with metadata.jsonl, metadata.csv or dataset.json, ZIP and tar archives "
    "of such (WebDataset too), Parquet of Hugging Face, .npz and .npy arrays, CIFAR-10 and -100 and MNIST."
)
_FORMS = (npy_form, npz_form, cifar_form, mnist_form, parquet_form, files_form)
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip", ".npz")
_VERSION = 2  # of the cache, counted up when the same files would be decoded to other arrays
_PIECE = 64  # images decoded together
_ARRAY, _DONE = "images.bin", "images.json"


def read_images(
    path: str | Path,
    split: Split,
    *,
    resolution: int | None = None,
    cache_dir: Path | None = None,
    skip_bad: bool = False,
    labelled: bool = True,
) -> ImageSet | None:
    """Read one part of an image set of the KNOWN_FORMS, or of a folder of archives; None when it has no such part.

    Sets without parts are all "train"; "shipped:NAME" is a file of the package. Of every image the middle square is cut
    out and resized to the `resolution`, in pixels. Decoded files are kept in `cache_dir`, None for policy_accel/images
    below $XDG_CACHE_HOME or ~/.cache. With `skip_bad`, `ImageSet.skipped` tells of images that cannot be read. An image
    without a class among others that have one is such an image if the set is `labelled`; else there are no labels.

    Raises:
        UserError: one sentence for whatever is wrong with the path, its content or the resolution.
    """
    if resolution is not None and resolution < 1:
        raise UserError(f"task.resolution is {resolution}; give the height and width in pixels, or null.")
    place = image_path(path)
    with ExitStack() as stack:
        tree, form = _recognised(place, stack)
        if form is None:
            listed = f"{len(tree.names)} files such as {', '.join(tree.names[:3])}" if tree.names else "no file"
            what = "is a file of another kind" if tree.alone else f"holds {listed}"
            raise UserError(f"{place}: is not an image set, it {what}; {KNOWN_FORMS}")
        found, source = form[1](split), f"{place} ({split})"
        if isinstance(found, Listing):
            part = part_of(found, split, labelled=labelled)
            found = part and _read_cached(part, source, resolution, cache_dir or default_cache(), skip_bad)
    if found is None or (images := fitted(found.images, resolution, source)) is found.images:
        return found
    return replace(found, images=images, key=found.key and f"{found.key} at {resolution}")


def image_form(path: str | Path) -> str | None:
    """Name of the form in which a path holds an image set, None when it holds something else; UserError when it does
    not exist, cannot be read, or is a damaged archive."""
    with ExitStack() as stack:
        _, form = _recognised(image_path(path), stack)
        return form and form[0]


def image_path(path: str | Path) -> Path:
    """Where the set is: "shipped:NAME" is a file of the folder datasets, ~ the home folder."""
    shipped = str(path).removeprefix("shipped:")
    return Path(path).expanduser() if shipped == str(path) else shipped_path(shipped)


def default_cache() -> Path:
    """$XDG_CACHE_HOME or ~/.cache, and policy_accel/images below it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "policy_accel" / "images"


def _recognised(place: Path, stack: ExitStack) -> tuple[Tree, Form | None]:
    """What lies there, and its form; of a folder that has none itself, that of the archives in it, which are read
    together, below folders for the parts that their names tell."""
    tree = open_tree(place, stack)
    form = next(filter(None, (form(tree) for form in _FORMS)), None)
    archives = [name for name in tree.names if name.lower().endswith(_ARCHIVES)] if place.is_dir() else []
    if form or not archives:
        return tree, form
    if len(archives) == 1:
        return _recognised(place / archives[0], stack)
    places = {}
    for archive in archives:
        inside = open_tree(place / archive, stack)
        for name in inside.names:
            folder, _, base = name.rpartition("/")
            steps = split_word(archive), folder, f"{Path(archive).name.partition('.')[0]}:{base}"
            places["/".join(filter(None, steps))] = inside, name
    joined = Tree(place, places, lambda found: found[0].read(found[1]), lambda found: found[0].path, tree.remarks)
    return joined, files_form(joined)


def _read_cached(part: Listing, source: str, resolution: int | None, cache_dir: Path, skip_bad: bool) -> ImageSet:
    """Decode the images of a part, or find them decoded under a key that is made of the path, of name, size and time of
    every file, and of the resolution; the labels are not in the cache."""
    _refuse(part.faults, skip_bad)
    digest = hashlib.sha256(f"{_VERSION} {part.tree.path.resolve()} {resolution}".encode())
    for name, _, _ in part.items:
        file = part.tree.on_disk(part.tree.places[name]) if name in part.tree.places else None
        found = file.stat() if file and file.exists() else None  # else it is said when it is read
        digest.update(f"\n{name} {found and f'{found.st_size} {found.st_mtime_ns}'}".encode())
    key = digest.hexdigest()[:32]
    folder = cache_dir / key
    try:
        images, made = _load(folder)
    except (OSError, ValueError, TypeError, KeyError):
        if folder.exists():
            print(f"{folder}: is damaged and is made again.", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
        try:
            with new_path(folder) as temporary:
                temporary.mkdir()
                made = _write(temporary, part, resolution, skip_bad) or _write(temporary, part, resolution, skip_bad, 3)
                (temporary / _DONE).write_text(json.dumps(made))
        except UserError:
            if not (folder / _DONE).exists():  # otherwise another process was faster
                raise
        with decoding(folder, "the cache"):
            images, made = _load(folder)
    faults = list(made["faults"].values())
    _refuse(faults, skip_bad)
    kept = [label for place, (_, _, label) in enumerate(part.items) if str(place) not in made["faults"]]
    labels = np.array(kept, np.int64) if part.classes else None
    done = [f"{count} images {what}, such as {name}." for what, (count, name) in made["done"].items()]
    remarks, skipped = (*part.tree.remarks, *done), (*part.faults, *faults)
    return ImageSet(images, labels, part.classes, source, key, remarks, skipped, part.encoding)


def _refuse(faults: Sequence[str], skip_bad: bool) -> None:
    if faults and not skip_bad:
        raise UserError(f"{faults[0].rstrip('.')}, or skip such images with task.skip_bad_images=true.")


def _load(folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    made = json.loads((folder / _DONE).read_text())
    return np.memmap(folder / _ARRAY, made["dtype"], "r", shape=tuple(made["shape"])), made


def _write(folder: Path, part: Listing, resolution: int | None, skip_bad: bool, channels: int = 0) -> Any:
    """Decode all images in turn and write them; None when one has colour after grey ones, which have to become it."""
    tree, names = part.tree, [name for name, _, _ in part.items]
    faults: dict[int, str] = {}
    done: dict[str, tuple[int, str]] = {}
    first: tuple[str, np.ndarray] | None = None

    def decoded(name: str) -> tuple[np.ndarray | None, list[str]]:
        try:
            return decode(tree.read(name), f"{tree.path}/{name}", resolution)
        except UserError as error:
            return None, [str(error)]

    bar = Progress("decode", len(names), unit="image")
    # The file is not mapped into memory, which would end the process when the disk is full.
    with (folder / _ARRAY).open("wb") as file, ThreadPoolExecutor(8) as pool, closing(bar):
        pieces = (pool.map(decoded, names[begin : begin + _PIECE]) for begin in range(0, len(names), _PIECE))
        for place, (name, (image, said)) in enumerate(zip(names, chain.from_iterable(pieces), strict=True)):
            bar.advance()
            if image is None:
                _refuse(said, skip_bad)
                faults[place] = said[0]
                continue
            for what in said:
                count, example = done.get(what, (0, name))
                done[what] = count + 1, example
            if first is None:
                first, channels = (name, image), channels or len(image)
                fitted(image[None], resolution, str(tree.path))
            like, axis = first[1], 1 if image.dtype == np.uint8 else 0
            if image.shape[axis:] != like.shape[axis:] or image.dtype != like.dtype:
                both = f"{first[0]} is {like.dtype} {[*like.shape]} and {name} is {image.dtype} {[*image.shape]}"
                remedy = "give task.resolution=SIZE to cut and resize all images, or encode all latents alike"
                raise UserError(f"{tree.path}: {both}; {remedy}.")
            if channels < len(image):
                return None
            file.write(image.repeat(channels // len(image), axis=0).tobytes())
    if first is None:
        raise UserError(f"{tree.path}: none of its {len(names)} images can be read, the first of them: {faults[0]}")
    shape = [len(names) - len(faults), channels, *first[1].shape[1:]]
    return {"shape": shape, "dtype": first[1].dtype.str, "faults": faults, "done": done}
