"""CIFAR-10 and CIFAR-100 as their publisher gives them: Python pickles or binary records (Krizhevsky 2009).

A pickle can name any function of any module, and the ordinary loader calls it. Here the pickle is not loaded: only the
bytes, texts and numbers that are written in it are listed, of which those after a key belong to it.
"""

from __future__ import annotations

import pickletools
import struct
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np

from policy_accel.data.images.image_set import ImageSet, Split
from policy_accel.data.tree import Tree
from policy_accel.errors import UserError, one_line

_PIXELS = 3 * 32 * 32
_AGAIN = "unpack the archive again"


class _Form(NamedTuple):
    title: str
    train: tuple[str, ...]
    test: str
    classes: int
    meta: str  # the file with the names of the classes
    label_key: str = ""  # of pickles
    names_key: str = ""
    label_bytes: int = 0  # before the pixels of a binary record; the last one is the label


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_BINARY = tuple(f"{name}.bin" for name in _BATCHES)
_FORMS = (
    _Form("CIFAR-10 (Python version)", _BATCHES, "test_batch", 10, "batches.meta", "labels", "label_names"),
    _Form("CIFAR-100 (Python version)", ("train",), "test", 100, "meta", "fine_labels", "fine_label_names"),
    _Form("CIFAR-10 (binary version)", _BINARY, "test_batch.bin", 10, "batches.meta.txt", label_bytes=1),
    _Form("CIFAR-100 (binary version)", ("train.bin",), "test.bin", 100, "fine_label_names.txt", label_bytes=2),
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
    assert found is not None
    form, folder = found
    files = form.train if split == "train" else (form.test,)
    missing = [name for name in files if folder + name not in tree.names]
    if missing and split == "test":
        return None
    if missing:
        raise UserError(f"{tree.path}: {form.title} is incomplete, {', '.join(missing)} is missing; {_AGAIN}.")
    parts = [_read_file(tree, folder + name, form) for name in files]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ImageSet(images, labels, _class_names(tree, folder + form.meta, form), f"{tree.path} ({split})")


def _class_names(tree: Tree, name: str, form: _Form) -> tuple[str, ...]:
    where, content = f"{tree.path}/{name}", tree.read(name)
    if form.label_bytes:
        lines = content.decode("utf-8", "replace").split("\n")
        names = [line.strip() for line in lines if line.strip()]
    else:
        names = _after(form.names_key, _written(content, where), str)[: form.classes]
    if len(set(names)) != form.classes:
        raise UserError(f"{where}: has {len(set(names))} class names instead of {form.classes}; {_AGAIN}.")
    return tuple(names)


def _find(tree: Tree) -> tuple[_Form, str] | None:
    """The form and the folder inside the tree that holds its files, "" or "NAME/"."""
    names = set(tree.names)
    for folder in ["", *sorted({name.partition("/")[0] + "/" for name in names if name.count("/") == 1})]:
        for form in _FORMS:
            if folder + form.meta in names and any(folder + name in names for name in (*form.train, form.test)):
                return form, folder
    return None


def _read_file(tree: Tree, name: str, form: _Form) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, 3, 32, 32] and int64 [N] of one file."""
    where, content = f"{tree.path}/{name}", tree.read(name)
    if form.label_bytes:
        width = form.label_bytes + _PIXELS
        if not content or len(content) % width:
            raise UserError(
                f"{where}: has {len(content)} bytes, no multiple of the {width} of a record; it is cut off or not "
                f"{form.title}: {_AGAIN}."
            )
        records = np.frombuffer(content, np.uint8).reshape(-1, width)
        pixels, labels = records[:, form.label_bytes :], records[:, form.label_bytes - 1].astype(np.int64)
    else:
        values = _written(content, where)
        bulk = max(
            (value.encode("latin1", "ignore") for value in values if isinstance(value, str)), key=len, default=b""
        )
        if not bulk or len(bulk) % _PIXELS:
            raise UserError(f"{where}: has no array 'data' of rows of {_PIXELS} bytes; {_AGAIN}.")
        pixels = np.frombuffer(bulk, np.uint8).reshape(-1, _PIXELS)
        labels = np.array(_after(form.label_key, values, int), np.int64)
    if len(labels) != len(pixels):
        raise UserError(f"{where}: has {len(labels)} labels for {len(pixels)} images; {_AGAIN}.")
    bad = np.flatnonzero((labels < 0) | (labels >= form.classes))
    if bad.size:
        raise UserError(
            f"{where}: label {labels[bad[0]]} of image {bad[0]} is outside 0..{form.classes - 1} of {form.title}; "
            f"{_AGAIN}."
        )
    return pixels.reshape(-1, 3, 32, 32), labels


def _written(content: bytes, where: str) -> list[int | str]:
    """The numbers and texts that are written in a pickle, in their order; bytes as texts of latin-1."""
    try:
        found = [
            argument.decode("latin1") if isinstance(argument, bytes | bytearray) else argument
            for code, argument, _ in pickletools.genops(content)
            if isinstance(argument, int | str | bytes | bytearray)
            and code.stack_after
            and code.stack_after[0].obtype is not object
        ]
    except (ValueError, struct.error) as error:
        raise UserError(f"{where}: is not a CIFAR batch or is cut off ({one_line(error)}); {_AGAIN}.") from error
    return found


def _after(key: str, values: list[int | str], kind: type) -> list[Any]:
    """The values of a kind that follow a key directly."""
    following = values[values.index(key) + 1 :] if key in values else []
    return list(takewhile(lambda value: isinstance(value, kind), following))
