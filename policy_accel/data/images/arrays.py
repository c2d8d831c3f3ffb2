"""Image sets that are arrays already: NPY and NPZ, CIFAR-10 and -100 (Krizhevsky 2009), MNIST (LeCun et al. 1998).

A pickle, as CIFAR's are, can name any function of any module, and the ordinary loader calls it. Here the pickle is not
loaded: only the bytes, texts and numbers that are written in it are listed, of which those after a key belong to it.
"""

from __future__ import annotations

import pickletools
import struct
import zipfile
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.formats.base import decoding
from policy_accel.data.images.image_set import ImageSet, Split
from policy_accel.data.images.listing import Form, number_names
from policy_accel.data.tree import Tree, unpacked
from policy_accel.errors import UserError
from policy_accel.memory import check_fits

_OURS = {"arr_0": "images", "arr_1": "labels"}  # for the names of guided-diffusion
_OTHERS = ("labels", "test_labels", "classes")
_PIXELS = 3 * 32 * 32
_BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
# Files of the training part, of the test part and of the names of the classes, how many these are; keys of the labels
# and of the names in pickles, or else how many bytes are before the pixels of a record, of which the last is the label.
_Cifar = tuple[list[str], str, str, int, str | int, str]
_CIFAR: dict[str, _Cifar] = {
    "CIFAR-10 (Python version)": (_BATCHES, "test_batch", "batches.meta", 10, "labels", "label_names"),
    "CIFAR-100 (Python version)": (["train"], "test", "meta", 100, "fine_labels", "fine_label_names"),
    "CIFAR-10 (binary version)": (
        [f"{name}.bin" for name in _BATCHES],
        "test_batch.bin",
        "batches.meta.txt",
        10,
        1,
        "",
    ),
    "CIFAR-100 (binary version)": (["train.bin"], "test.bin", "fine_label_names.txt", 100, 2, ""),
}


def npy_form(tree: Tree) -> Form | None:
    """Latents float16 or float32 [N, C, H, W] in one array, which is mapped into memory."""
    if not tree.alone or not tree.names[0].endswith(".npy"):
        return None
    path = tree.path / tree.names[0]

    def load(split: Split) -> ImageSet | None:
        with decoding(path, "the array"):
            values, found = np.load(path, mmap_mode="r", allow_pickle=False), path.stat()
        key = f"{path.resolve()} {found.st_size} {found.st_mtime_ns}"
        return ImageSet(values, None, (), str(path), key) if split == "train" else None

    return "NPY", load


def npz_form(tree: Tree) -> Form | None:
    """A ZIP of arrays, with `test_` before the names of those of the test part: `images` uint8 [N, H, W, C],
    [N, C, H, W] or [N, H, W], or `latents` float16 or float32 [N, C, H, W]; `labels` and names of `classes`."""
    names = {_OURS.get(name, name): name for name in (name.removesuffix(".npy") for name in tree.names)}
    known = tree.path.suffix == ".npz" or not names.keys().isdisjoint(("images", "latents"))
    whole = tree.path.is_file() and all(name.endswith(".npy") for name in tree.names)
    return ("NPZ", lambda split: _read_npz(tree.path, names, split)) if known and whole else None


def _read_npz(path: Path, names: dict[str, str], split: Split) -> ImageSet | None:
    part = "" if split == "train" else "test_"
    own = next((part + kind for kind in ("images", "latents") if part + kind in names), None)
    if own is None and part:
        return None
    if own is None:
        shown = ", ".join(list(names)[:5])
        raise UserError(f"{path}: holds the arrays {shown}; an image set has 'images', 'latents' or 'arr_0'.")
    with decoding(path, "the NPZ"), zipfile.ZipFile(path) as stored, np.load(path) as archive:
        check_fits(sum(entry.file_size for entry in stored.infolist()), str(path))
        values = archive[names[own]]
        found = {key: archive[name].reshape(-1) for key, name in names.items() if key in _OTHERS}
    if (values.dtype.kind == "f") != own.endswith("latents"):
        kinds = "'images' are uint8 and 'latents' float16 or float32"
        raise UserError(f"{path}: '{own}' holds {values.dtype} values; {kinds}.")
    if values.dtype == np.uint8 and values.ndim == 3:
        values = values[:, None]
    elif values.dtype == np.uint8 and values.ndim == 4 and values.shape[3] in (1, 3):
        values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    listed, labels, source = found.pop("classes", ()), found.get(f"{part}labels"), f"{path} ({split})"
    if labels is None or labels.dtype.kind not in "iu":
        return ImageSet(values, labels, (), source)
    classes = tuple(text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in listed)
    largest = max(int(some.max(initial=0)) for some in found.values() if some.dtype.kind in "iu")  # of both parts
    return ImageSet(values, labels.astype(np.int64), classes or number_names(largest, str(path)), source)


def cifar_form(tree: Tree) -> Form | None:
    """CIFAR at the root of the tree or one folder below, of CIFAR-100 the fine labels."""
    names = set(tree.names)
    folders = {"", *(name.partition("/")[0] + "/" for name in names if name.count("/") == 1)}
    for title, (train, test, meta, *_) in _CIFAR.items():
        for folder in sorted(folders):
            if folder + meta in names and not names.isdisjoint(folder + name for name in (*train, test)):
                return title, partial(_read_cifar, tree, _CIFAR[title], folder)
    return None


def _read_cifar(tree: Tree, form: _Cifar, folder: str, split: Split) -> ImageSet | None:
    train, test, meta, count, key, names_key = form
    files = [folder + file for file in (train if split == "train" else [test])]
    if split == "test" and files[0] not in tree.places:
        return None
    content, where = tree.read(folder + meta), f"{tree.path}/{folder}{meta}"
    lines = list(filter(None, map(str.strip, content.decode("utf-8", "replace").split("\n"))))
    classes = tuple((_after(names_key, _written(content, where), str) if names_key else lines)[:count])
    if len(set(classes)) != count:
        raise UserError(f"{where}: has {len(set(classes))} class names instead of {count}; download the set again.")
    parts = []
    for file in files:
        content, where = tree.read(file), f"{tree.path}/{file}"
        before, written = (key, []) if isinstance(key, int) else (0, _written(content, where))
        texts = [text.encode("latin1", "ignore") for text in written if isinstance(text, str)]
        with decoding(where, "the CIFAR batch"):
            records = np.frombuffer(content if before else max(texts, key=len, default=b""), np.uint8)
            records = records.reshape(-1, before + _PIXELS)
            labels = np.array(records[:, before - 1] if before else _after(str(key), written, int), np.int64)
        parts.append(ImageSet(records[:, before:].reshape(-1, 3, 32, 32), labels, classes, where))
    images, labels = (np.concatenate([getattr(part, kind) for part in parts]) for kind in ("images", "labels"))
    return ImageSet(images, labels, classes, f"{tree.path} ({split})")


def _written(content: bytes, where: str) -> list[int | str]:
    """The numbers and texts that are written in a pickle, in their order; bytes as texts of latin-1."""
    with decoding(where, "the CIFAR batch"):
        return [
            value.decode("latin1") if isinstance(value, bytes | bytearray) else value
            for code, value, _ in pickletools.genops(content)
            if isinstance(value, int | str | bytes | bytearray)
            and code.stack_after
            and code.stack_after[0].obtype is not object
        ]


def _after(key: str, values: list[int | str], kind: type) -> list[Any]:
    """The values of a kind that follow a key directly."""
    following = values[values.index(key) + 1 :] if key in values else []
    return list(takewhile(lambda value: isinstance(value, kind), following))


def mnist_form(tree: Tree) -> Form | None:
    """Four IDX files of bytes, compressed or not, under the names that are in use, at the root or one folder below."""
    near = [name for name in tree.names if name.count("/") <= 1]
    found = {name.rpartition("/")[2].removesuffix(".gz").replace(".idx", "-idx"): name for name in near}
    if found.keys().isdisjoint(("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")):
        return None

    def read(name: str, axes: int) -> np.ndarray:
        where = f"{tree.path}/{name}"
        content = unpacked(tree.read(name), where)
        with decoding(where, "the IDX file"):
            if content[:4] != bytes([0, 0, 8, axes]):
                raise ValueError(f"it begins with {content[:4]!r}")
            shape = struct.unpack_from(f">{axes}I", content, 4)
            return np.frombuffer(bytearray(content), np.uint8, offset=4 + 4 * axes).reshape(shape)  # a writable one

    def load(split: Split) -> ImageSet | None:
        part = "train" if split == "train" else "t10k"
        names = [f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"]
        if split == "test" and names[0] not in found:
            return None
        images, labels = (read(found.get(name, name), axes) for name, axes in zip(names, (3, 1), strict=True))
        classes = number_names(int(labels.max(initial=9)), str(tree.path))  # the digits, also where one is missing
        return ImageSet(images[:, None], labels.astype(np.int64), classes, f"{tree.path} ({split})")

    return "MNIST (IDX)", load
