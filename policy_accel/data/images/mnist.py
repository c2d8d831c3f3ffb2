"""MNIST and its relatives: four IDX files, compressed or not (LeCun et al. 1998)."""

from __future__ import annotations

import struct

import numpy as np

from policy_accel.data.images.image_set import ImageSet, Split
from policy_accel.data.images.listing import number_names
from policy_accel.data.tree import Tree, unpacked
from policy_accel.errors import UserError

_PREFIX = {"train": "train", "test": "t10k"}
_BYTES = 0x08  # the type code of uint8
_AGAIN = "download it again"


def find_mnist(tree: Tree) -> str | None:
    """ "MNIST (IDX)" when the tree holds the images at its root or one folder below, or None."""
    return "MNIST (IDX)" if any(_find(tree, split, "images") for split in _PREFIX) else None


def read_mnist(tree: Tree, split: Split) -> ImageSet | None:
    """Read the part as uint8 [N, 1, H, W] with labels.

    Raises:
        UserError: a file missing, cut off or no IDX file; counts that differ.
    """
    images_name, labels_name = (_find(tree, split, what) for what in ("images", "labels"))
    if images_name is None:
        if split == "test":
            return None
        raise UserError(f"{tree.path}: MNIST is incomplete, train-images-idx3-ubyte is missing; {_AGAIN}.")
    if labels_name is None:
        raise UserError(f"{tree.path}: has {images_name} and not the labels that belong to it; {_AGAIN}.")
    images, labels = _read_idx(tree, images_name, 3), _read_idx(tree, labels_name, 1).astype(np.int64)
    if len(images) != len(labels):
        raise UserError(f"{tree.path}: {images_name} has {len(images)} images, {labels_name} {len(labels)}; {_AGAIN}.")
    classes = number_names(max(9, *labels), str(tree.path))  # the digits, also where one is not among the labels
    return ImageSet(images[:, None], labels, classes, f"{tree.path} ({split})")


def _find(tree: Tree, split: str, what: str) -> str | None:
    """The file of `what` ("images", "labels"), under the names that are in use."""
    for join in ("-", "."):
        for suffix in ("", ".gz"):
            wanted = f"{_PREFIX[split]}-{what}{join}idx{3 if what == 'images' else 1}-ubyte{suffix}"
            for name in tree.names:
                if name.count("/") <= 1 and name.rpartition("/")[2] == wanted:
                    return name
    return None


def _read_idx(tree: Tree, name: str, dimensions: int) -> np.ndarray:
    """uint8 array of `dimensions` axes."""
    where = f"{tree.path}/{name}"
    content = unpacked(tree.read(name), where)
    header = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, _BYTES, dimensions]) or len(content) < header:
        raise UserError(
            f"{where}: is not an IDX file of bytes with {dimensions} axes, it begins with {content[:4]!r}; {_AGAIN}."
        )
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    expected = int(np.prod(shape, dtype=object))
    if len(content) - header != expected:
        raise UserError(
            f"{where}: has {len(content) - header} bytes of values instead of {expected} for {list(shape)}; {_AGAIN}."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()  # a writable one
