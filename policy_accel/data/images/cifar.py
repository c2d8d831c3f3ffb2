"""CIFAR-10 and CIFAR-100 as their publisher gives them: Python pickles or binary records (Krizhevsky 2009)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policy_accel.data.images.image_set import ImageSet, Split
from policy_accel.data.images.pickles import load_batch
from policy_accel.data.tree import Tree
from policy_accel.errors import UserError

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Layout:
    """One of the four forms.

    Attributes:
        title: for messages.
        train, test: names of the files with images.
        classes: number of classes.
        meta: name of the file with the names of the classes.
        label_key, names_key: keys of the pickles; "" for binary records.
        label_bytes: bytes before the pixels of a binary record; the last one is the label.
    """

    title: str
    train: tuple[str, ...]
    test: str
    classes: int
    meta: str
    label_key: str = ""
    names_key: str = ""
    label_bytes: int = 0


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_BINARY_BATCHES = tuple(f"{name}.bin" for name in _BATCHES)
_LAYOUTS = (
    _Layout("CIFAR-10 (Python version)", _BATCHES, "test_batch", 10, "batches.meta", "labels", "label_names"),
    _Layout("CIFAR-100 (Python version)", ("train",), "test", 100, "meta", "fine_labels", "fine_label_names"),
    _Layout("CIFAR-10 (binary version)", _BINARY_BATCHES, "test_batch.bin", 10, "batches.meta.txt", label_bytes=1),
    _Layout("CIFAR-100 (binary version)", ("train.bin",), "test.bin", 100, "fine_label_names.txt", label_bytes=2),
)


def find_cifar(tree: Tree) -> str | None:
    """Name of the form that the tree holds at its root or one folder below, or None."""
    found = _find(tree)
    return None if found is None else found[0].title


def read_cifar(tree: Tree, split: Split) -> ImageSet | None:
    """Read the part as uint8 [N, 3, 32, 32] with labels; CIFAR-100 with its 100 fine ones.

    Raises:
        UserError: a file missing, cut off or not what it should be.
    """
    found = _find(tree)
    if found is None:
        return None
    layout, folder = found
    wanted = layout.train if split == "train" else (layout.test,)
    missing = [name for name in wanted if folder + name not in tree.names]
    if missing and split == "test":
        return None
    if missing:
        raise UserError(
            f"{tree.path}: {layout.title} is incomplete, {', '.join(missing)} is missing; unpack the archive again."
        )
    parts = [_read_file(tree, folder + name, layout) for name in wanted]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ImageSet(images, labels, _class_names(tree, folder, layout), f"{tree.path} ({split})")


def _find(tree: Tree) -> tuple[_Layout, str] | None:
    """The form and the folder inside the tree that holds its files, "" or "NAME/"."""
    names = set(tree.names)
    folders = ["", *sorted({name.partition("/")[0] + "/" for name in names if name.count("/") == 1})]
    for folder in folders:
        for layout in _LAYOUTS:
            if folder + layout.meta in names and any(folder + name in names for name in (*layout.train, layout.test)):
                return layout, folder
    return None


def _read_file(tree: Tree, name: str, layout: _Layout) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, 3, 32, 32] and int64 [N] of one file."""
    where = f"{tree.path}/{name}"
    content = tree.read(name)
    if layout.label_bytes:
        width = layout.label_bytes + _PIXELS
        if not content or len(content) % width:
            raise UserError(
                f"{where}: has {len(content)} bytes, no multiple of the {width} of a record; it is cut off or not "
                f"{layout.title}: unpack the archive again."
            )
        records = np.frombuffer(content, np.uint8).reshape(-1, width)
        pixels, labels = records[:, layout.label_bytes :], records[:, layout.label_bytes - 1].astype(np.int64)
    else:
        batch = load_batch(content, where)
        found = batch.get("data")
        if not isinstance(found, np.ndarray) or found.ndim != 2 or found.shape[1] != _PIXELS:
            raise UserError(f"{where}: has no array 'data' of rows of {_PIXELS} bytes; unpack the archive again.")
        pixels, labels = found, _label_list(batch.get(layout.label_key), layout, where)
    if len(labels) != len(pixels):
        raise UserError(f"{where}: has {len(labels)} labels for {len(pixels)} images; unpack the archive again.")
    bad = np.flatnonzero((labels < 0) | (labels >= layout.classes))
    if bad.size:
        raise UserError(
            f"{where}: label {labels[bad[0]]} of image {bad[0]} is outside 0..{layout.classes - 1} of {layout.title}; "
            "unpack the archive again."
        )
    return pixels.reshape(-1, 3, 32, 32), labels


def _label_list(values: object, layout: _Layout, where: str) -> np.ndarray:
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise UserError(f"{where}: has no list of integers '{layout.label_key}'; unpack the archive again.")
    return np.array(values, np.int64)


def _class_names(tree: Tree, folder: str, layout: _Layout) -> tuple[str, ...]:
    where = f"{tree.path}/{folder}{layout.meta}"
    content = tree.read(folder + layout.meta)
    if layout.label_bytes:
        names = [line for line in content.decode("utf-8", "replace").split("\n") if line.strip()]
    else:
        listed = load_batch(content, where).get(layout.names_key)
        names = [str(name) for name in listed] if isinstance(listed, list) else []
    if len(names) != layout.classes or len(set(names)) != layout.classes:
        raise UserError(f"{where}: has {len(names)} class names instead of {layout.classes}; unpack the archive again.")
    return tuple(name.strip() for name in names)
