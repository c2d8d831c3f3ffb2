"""How a tree of single image files (or latents) is meant: which belong to a part, and to which class."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from policy_accel.data.images.decode import SUFFIXES
from policy_accel.data.images.image_set import Split, number_names
from policy_accel.data.tree import Tree
from policy_accel.errors import UserError

LATENT = ".npy"
LABEL_FILE = "dataset.json"
_TEST_FOLDERS = ("test", "val", "valid", "validation")  # the first that is there is the test part


@dataclass(frozen=True)
class Layout:
    """The files of one part.

    Attributes:
        names: of the files, sorted.
        labels: int64 [N] or None.
        classes: names of the classes; () without labels.
        latents: whether the files are arrays of latents.
    """

    names: tuple[str, ...]
    labels: np.ndarray | None
    classes: tuple[str, ...]
    latents: bool


def find_files(tree: Tree) -> str | None:
    """Name of the form when the tree holds image files or latents, or None."""
    suffixes = {_suffix(name) for name in tree.names}
    kind = "images" if suffixes & SUFFIXES else "latents" if LATENT in suffixes else None
    if kind is None:
        return None
    labelled = any(name.rpartition("/")[2] == LABEL_FILE for name in tree.names)
    return f"{kind} with {LABEL_FILE}" if labelled else f"files of {kind}"


def lay_out(tree: Tree, split: Split) -> Layout | None:
    """Find the files of a part and their labels.

    Folders train/ and test/ (or val/) at the root are parts; without them all files train. In a part, dataset.json
    gives the labels if it is there (StyleGAN's and EDM's form); else the first folders are the classes, and files
    without any folder have no labels. One folder around the whole set does not count.

    Raises:
        UserError: images beside latents, files beside class folders, labels that do not fit the files.
    """
    files = [name for name in tree.names if _suffix(name) in SUFFIXES or _suffix(name) == LATENT]
    latents = [name for name in files if _suffix(name) == LATENT]
    if latents and len(latents) < len(files):
        other = next(name for name in files if name not in set(latents))
        raise UserError(f"{tree.path}: holds latents ({latents[0]}) beside images ({other}); keep them apart.")
    roots = _parts(tree, files, _common_folder(files, tree.names))
    if split not in roots:
        return None
    names, labels, classes = _label(tree, files, roots[split], roots["train"])
    return Layout(tuple(names), labels, classes, bool(latents))


def _common_folder(files: list[str], everything: tuple[str, ...]) -> str:
    """The folder, "" or "NAME/.../", below which the set begins: one around all of it is no class."""
    prefix = ""
    while prefix + LABEL_FILE not in everything:
        inside = [name.removeprefix(prefix) for name in files]
        tops = {_top(name) for name in inside}
        if len(tops) > 1 or tops & {"train"} or any("/" not in name for name in inside):
            break
        below = f"{prefix}{tops.pop()}/"
        if below + LABEL_FILE not in everything and not all("/" in name.removeprefix(below) for name in files):
            break
        prefix = below
    return prefix


def _parts(tree: Tree, files: list[str], prefix: str) -> dict[str, str]:
    """The folder of each part, which is `prefix` or lies just below it; names are compared without case."""
    lower = {_top(name.removeprefix(prefix)).lower(): _top(name.removeprefix(prefix)) for name in files}
    test = next((name for name in _TEST_FOLDERS if name in lower), None)
    others = set(lower) - {"train", *_TEST_FOLDERS}
    if "train" not in lower or (test is None and others):  # a class may be called "train"
        return {"train": prefix}
    parts = {"train": f"{prefix}{lower['train']}/"}
    if test is None:
        return parts
    if others:
        raise UserError(
            f"{tree.path}/{prefix}{lower[min(others)]}: lies beside {lower['train']}/ and {lower[test]}/ and belongs "
            "to no part; move it away."
        )
    return parts | {"test": f"{prefix}{lower[test]}/"}


def _label(
    tree: Tree, files: list[str], root: str, train_root: str
) -> tuple[list[str], np.ndarray | None, tuple[str, ...]]:
    names = [name for name in files if name.startswith(root)]
    if root + LABEL_FILE in tree.names:
        return _labels_of_file(tree, names, root)
    inside = [name.removeprefix(root) for name in names]
    flat = [name for name in inside if "/" not in name]
    if len(flat) == len(inside):
        return names, None, ()
    if flat:
        neighbour = _top(next(name for name in inside if "/" in name))
        raise UserError(
            f"{tree.path}/{root}{flat[0]}: lies beside folders of classes such as {neighbour}/; move it into one."
        )
    of_train = (name.removeprefix(train_root) for name in files if name.startswith(train_root))
    classes = tuple(sorted({_top(name) for name in of_train}))
    number = {name: label for label, name in enumerate(classes)}
    unknown = next((name for name in inside if _top(name) not in number), None)
    if unknown is not None:
        raise UserError(
            f"{tree.path}/{root}{unknown}: its class {_top(unknown)} is not among the {len(classes)} of the training "
            "part; remove the folder or add training images."
        )
    return names, np.array([number[_top(name)] for name in inside], np.int64), classes


def _labels_of_file(tree: Tree, names: list[str], root: str) -> tuple[list[str], np.ndarray | None, tuple[str, ...]]:
    where = f"{tree.path}/{root}{LABEL_FILE}"
    try:
        listed = json.loads(tree.read(root + LABEL_FILE))
    except ValueError as error:
        raise UserError(f"{where}: is not valid JSON ({error}); make the set again.") from error
    listed = listed.get("labels") if isinstance(listed, dict) else listed
    if not listed:
        return names, None, ()
    if not isinstance(listed, list) or not all(_is_entry(entry) for entry in listed):
        raise UserError(f'{where}: "labels" is not a list of ["path", number]; make the set again.')
    labels = {root + name.replace("\\", "/"): label for name, label in listed}
    without = [name for name in names if name not in labels]
    if without or len(labels) != len(names):
        shown = f", none for {without[0]}" if without else ""
        raise UserError(f"{where}: has {len(labels)} labels for {len(names)} images{shown}; make the set again.")
    found = np.array([labels[name] for name in names], np.int64)
    if found.size and found.min() < 0:
        raise UserError(f"{where}: has the label {found.min()}; labels are integers from 0.")
    return names, found, number_names(np.array(list(labels.values()), np.int64), str(where))


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and type(entry[1]) is int


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _top(name: str) -> str:
    return name.partition("/")[0]
