"""Image sets that are arrays already: NPY and NPZ, CIFAR-10 and -100 (Krizhevsky 2009), MNIST (LeCun et al. 1998)."""

from __future__ import annotations

import pickletools
import zipfile
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np

from policy_accel.data.formats.base import decoding
from policy_accel.data.images.encoding import ENCODING, encoding_of
from policy_accel.data.images.image_set import Form, ImageSet, Split, number_names
from policy_accel.data.images.stored import mapped_array
from policy_accel.data.tree import Tree, unpacked
from policy_accel.errors import UserError
from policy_accel.memory import check_fits

_OURS = {
    **{"arr_0": "images", "arr_1": "labels"},  # guided-diffusion
    **{"train_images": "images", "train_labels": "labels"},  # MedMNIST
    **{"x_train": "images", "y_train": "labels", "x_test": "test_images", "y_test": "test_labels"},  # Keras
}
"""Names of others for the arrays that we call so."""
_OTHERS = ("labels", "test_labels", "classes")
_PIXELS = 3 * 32 * 32
_BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
# Files of the training part, of the test part and of the names of the classes; how many these are.
_CIFAR = {
    "CIFAR-10 (Python version)": (_BATCHES, "test_batch", "batches.meta", 10),
    "CIFAR-100 (Python version)": (["train"], "test", "meta", 100),
    "CIFAR-10 (binary version)": ([f"{name}.bin" for name in _BATCHES], "test_batch.bin", "batches.meta.txt", 10),
    "CIFAR-100 (binary version)": (["train.bin"], "test.bin", "fine_label_names.txt", 100),
}


def npy_form(tree: Tree) -> Form | None:
    """Latents float16 or float32 [N, C, H, W] in one array, which is mapped into memory; encoding.json beside it may
    tell how they were made."""
    if not tree.alone or not tree.names[0].endswith(".npy"):
        return None
    path = tree.path / tree.names[0]

    def load(split: Split) -> ImageSet | None:
        with decoding(path, "the array"):
            values, found = np.load(path, mmap_mode="r", allow_pickle=False), path.stat()
            told = path.with_name(ENCODING)
            encoding = encoding_of(told.read_bytes(), str(told)) if told.is_file() else None
        key = f"{path.resolve()} {found.st_size} {found.st_mtime_ns}"
        return ImageSet(values, None, (), str(path), key, encoding=encoding) if split == "train" else None

    return "NPY", load


def npz_form(tree: Tree) -> Form | None:
    """A ZIP of arrays, with `test_` before the names of those of the test part, or as `_OURS` has them: `images` uint8
    [N, H, W, C], [N, C, H, W] or [N, H, W], or `latents` float16 or float32 [N, C, H, W]; `labels` and names of
    `classes`. With encoding.json, which tells how latents were made, they are mapped into memory where they are not
    compressed."""
    path, names = tree.path, {name.removesuffix(".npy"): name for name in tree.names if name != ENCODING}
    names = {_OURS.get(name, name): name for name in names}
    known = path.suffix == ".npz" or not names.keys().isdisjoint(("images", "latents"))
    if not known or not path.is_file() or not all(name.endswith(".npy") for name in tree.names if name != ENCODING):
        return None

    def load(split: Split) -> ImageSet | None:
        part = "" if split == "train" else "test_"
        own = next((part + kind for kind in ("images", "latents") if part + kind in names), None)
        if own is None and part:
            return None
        if own is None:
            shown = ", ".join(list(names)[:5])
            raise UserError(f"{path}: holds the arrays {shown}; an image set has 'images', 'latents' or 'arr_0'.")
        with decoding(path, "the NPZ"), zipfile.ZipFile(path) as stored, np.load(path) as archive:
            encoding = encoding_of(tree.read(ENCODING), f"{path}/{ENCODING}") if ENCODING in tree.places else None
            member = f"{names[own]}.npy"
            mapped = mapped_array(stored, member) if encoding else None
            if mapped is None:
                check_fits(sum(entry.file_size for entry in stored.infolist()), str(path))
            values = archive[member] if mapped is None else mapped
            key = f"CRC-32 {stored.getinfo(member).CRC}" if encoding else None
            found = {name: archive[names[name]].reshape(-1) for name in _OTHERS if name in names}
        if (values.dtype.kind == "f") != own.endswith("latents"):
            kinds = "'images' are uint8 and 'latents' float16 or float32"
            raise UserError(f"{path}: '{own}' holds {values.dtype} values; {kinds}.")
        if own.endswith("images") and values.ndim == 3:
            values = values[:, None]
        elif own.endswith("images") and values.ndim == 4 and values.shape[3] in (1, 3):
            values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        listed, labels, source = found.pop("classes", ()), found.get(f"{part}labels"), f"{path} ({split})"
        if labels is None or labels.dtype.kind not in "iu":
            return ImageSet(values, labels, (), source, key, encoding=encoding)
        classes = tuple(text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in listed)
        largest = max(int(some.max(initial=0)) for some in found.values() if some.dtype.kind in "iu")  # of both parts
        classes = classes or number_names(largest)
        return ImageSet(values, labels.astype(np.int64), classes, source, key, encoding=encoding)

    return "NPZ", load


def cifar_form(tree: Tree) -> Form | None:
    """CIFAR at the root of the tree or one folder below, of CIFAR-100 the fine labels."""
    names = set(tree.names)
    folders = {"", *(name.partition("/")[0] + "/" for name in names if name.count("/") == 1)}
    for title, (train, test, meta, _) in _CIFAR.items():
        for folder in sorted(folders):
            if folder + meta in names and not names.isdisjoint(folder + name for name in (*train, test)):
                return title, partial(_read_cifar, tree, title, folder)
    return None


def _read_cifar(tree: Tree, title: str, folder: str, split: Split) -> ImageSet | None:
    train, test, meta, count = _CIFAR[title]
    if split == "test" and folder + test not in tree.places:
        return None
    binary, fine, where = "binary" in title, "fine_" if count == 100 else "", f"{tree.path}/{folder}{meta}"
    content = tree.read(folder + meta)
    with decoding(where, "the file of names"):
        lines = content.decode().split("\n") if binary else _pickled(content, f"{fine}label_names")[1][:count]
        classes = tuple(filter(None, map(str.strip, lines)))
    if len(set(classes)) != count:
        raise UserError(f"{where}: has {len(set(classes))} class names instead of {count}; download the set again.")
    parts = []
    for file in train if split == "train" else (test,):
        content, where = tree.read(folder + file), f"{tree.path}/{folder}{file}"
        with decoding(where, "the CIFAR batch"):
            if binary:  # the label, of CIFAR-100 the coarse and the fine one, before the pixels
                records = np.frombuffer(content, np.uint8).reshape(-1, (2 if fine else 1) + _PIXELS)
                pixels, numbers = records[:, -_PIXELS:], records[:, -_PIXELS - 1].tolist()
            else:
                longest, numbers = _pickled(content, f"{fine}labels")
                pixels = np.frombuffer(longest, np.uint8)
            pixels, labels = pixels.reshape(-1, 3, 32, 32), np.array(numbers, np.int64)
        parts.append(ImageSet(pixels, labels, classes, where))
    images, labels = (np.concatenate([getattr(part, kind) for part in parts]) for kind in ("images", "labels"))
    return ImageSet(images, labels, classes, f"{tree.path} ({split})")


def _pickled(content: bytes, key: str) -> tuple[bytes, list[Any]]:
    """The longest text that is written in a pickle, and the texts or numbers that follow a key directly.

    A pickle can name any function of any module, and the ordinary loader calls it; so the pickle is not loaded."""
    values = [
        value.decode("latin1") if isinstance(value, bytes | bytearray) else value
        for code, value, _ in pickletools.genops(content)
        if value is not None and code.stack_after not in ([], [pickletools.anyobject])
    ]
    longest = max((value for value in values if isinstance(value, str)), key=len, default="")
    following = values[values.index(key) + 1 :] if key in values else []
    return longest.encode("latin1"), list(takewhile(lambda value: isinstance(value, type(following[0])), following))


def mnist_form(tree: Tree) -> Form | None:
    """Four IDX files of bytes, compressed or not, under the names that are in use, at the root or one folder below."""
    near = [name for name in tree.names if name.count("/") <= 1]
    found = {name.rpartition("/")[2].removesuffix(".gz").replace(".idx", "-idx"): name for name in near}
    if found.keys().isdisjoint(("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")):
        return None

    def read(name: str, axes: int) -> np.ndarray:
        where = f"{tree.path}/{found.get(name, name)}"
        content = unpacked(tree.read(found.get(name, name)), where)
        with decoding(where, "the IDX file"):
            if content[:4] != bytes([0, 0, 8, axes]):
                raise ValueError(f"it begins with {content[:4]!r}")
            shape = np.frombuffer(content, ">u4", axes, offset=4)
            return np.frombuffer(bytearray(content), np.uint8, offset=4 + 4 * axes).reshape(shape)  # a writable one

    def load(split: Split) -> ImageSet | None:
        part = "train" if split == "train" else "t10k"
        if split == "test" and f"{part}-images-idx3-ubyte" not in found:
            return None
        images, labels = read(f"{part}-images-idx3-ubyte", 3), read(f"{part}-labels-idx1-ubyte", 1)
        classes = number_names(int(labels.max(initial=9)))  # the digits, also where one is missing
        return ImageSet(images[:, None], labels.astype(np.int64), classes, f"{tree.path} ({split})")

    return "MNIST (IDX)", load
