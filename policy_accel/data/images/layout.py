"""How files below one root are meant: which are images (or latents), of which part, and of which class."""

from __future__ import annotations

import csv
import io
import json
from pathlib import PurePosixPath
from typing import Any

from policy_accel.data.images.decode import SUFFIXES, is_image
from policy_accel.data.images.listing import (
    LABEL_NAMES,
    TEST_NAMES,
    TRAIN_NAMES,
    Label,
    Listing,
    class_label,
    label_column,
)
from policy_accel.data.tree import Tree
from policy_accel.errors import UserError, one_line
from policy_accel.files import open_regular

LATENT = ".npy"
LABEL_FILES = ("dataset.json", "metadata.jsonl", "metadata.csv")
_FILE_NAMES = ("file_name", "filename", "file", "image", "path")
_SIDECARS = (".cls", ".json")


def find_files(tree: Tree) -> str | None:
    """Name of the form when the tree holds image files or latents, or None."""
    files = _images(tree)
    if not files:
        return None
    kind = "latents" if _suffix(files[0]) == LATENT else "images"
    label_file = next((file for file in LABEL_FILES for name in tree.names if _base(name) == file), None)
    if label_file is not None:
        return f"{kind} with {label_file}"
    return f"WebDataset of {kind}" if any(name.endswith(".cls") for name in tree.names) else f"files of {kind}"


def list_files(tree: Tree) -> Listing:
    """Find the image files, their parts and their labels.

    Folders train/ and test/ (or training/, testing/, val/, valid/, validation/, of any case) are parts, above the
    folders of classes or directly below them; without them all files train. Labels are those of dataset.json (as
    StyleGAN and EDM write it), metadata.jsonl or metadata.csv (Hugging Face), else those of KEY.cls or KEY.json beside
    KEY.png (WebDataset), else the first folders, and files without any folder have none. One folder around the whole
    set does not count.

    Raises:
        UserError: images beside latents, a label file that cannot be understood.
    """
    names, remarks = _images(tree), list(tree.remarks)
    latents = [name for name in names if _suffix(name) == LATENT]
    if latents and len(latents) < len(names):
        other = next(name for name in names if _suffix(name) != LATENT)
        raise UserError(f"{tree.path}: holds latents ({latents[0]}) beside images ({other}); keep them apart.")
    paths = _inside(names)
    level = _split_level(paths)
    listing = Listing(
        str(tree.path), names, ["train"] * len(names), [], tree.read, tree.stamp, (), bool(latents), [], remarks
    )
    if level is not None:
        listing.parts = [path[level] if len(path) > level + 1 else path[-1] for path in paths]
        paths = [path[:level] + path[level + 1 :] for path in paths]
    label_files = [name for name in tree.names if _base(name) in LABEL_FILES]
    if label_files:
        _label_by_files(tree, label_files, listing)
    else:
        listing.labels = _sidecar_labels(tree, listing) or [path[0] if len(path) > 1 else None for path in paths]
    return listing


def _images(tree: Tree) -> list[str]:
    """Files with the suffix of an image or of latents; where there are none, those without suffix that are images."""
    found = [name for name in tree.names if _suffix(name) in SUFFIXES or _suffix(name) == LATENT]
    if found or not tree.path.is_dir():
        return found
    bare = [name for name in tree.names if not _suffix(name)]

    def image(name: str) -> bool:
        with open_regular(tree.path / name) as file:
            return is_image(file.read(16))

    return [name for name in bare if image(name)] if bare and image(bare[0]) else []


def _inside(names: list[str]) -> list[list[str]]:
    """The steps of each path, below the folder that is around all of them: it is no class."""
    paths = [name.split("/") for name in names]
    while len({path[0] for path in paths}) == 1 and paths[0][0].lower() not in TRAIN_NAMES:
        if any(len(path) < 3 for path in paths):
            break
        paths = [path[1:] for path in paths]
    return paths


def _split_level(paths: list[list[str]]) -> int | None:
    """How many folders are above those of the parts: none, or those of the classes; None without parts."""
    for level in (0, 1):
        tops = {path[level].lower() if len(path) > level + 1 else "" for path in paths}
        train, test = tops.intersection(TRAIN_NAMES), tops.intersection(TEST_NAMES)
        if train and (test or tops == train) and (level == 0 or tops == train | test):
            return level
    return None


def _label_by_files(tree: Tree, label_files: list[str], listing: Listing) -> None:
    """Fill in the labels from files that list them."""
    labels: dict[str, Label] = {}
    for file in label_files:
        folder = file.removesuffix(_base(file))
        rows = _rows(tree, file, listing.remarks)
        labels |= {folder + str(name).replace("\\", "/"): class_label(label) for name, label in rows}
        if rows and all(class_label(label) is None for _, label in rows):
            listing.remarks.append(f"the labels in {file} are no classes, such as {rows[0][1]}; they are not used.")
    if any(label is not None for label in labels.values()):
        listing.labels = [labels.get(name) for name in listing.names]
        gone = sorted(labels.keys() - set(listing.names))
        listing.faults += [
            f"{tree.path}/{name}: is listed in {_base(label_files[0])} and not there; add it" for name in gone
        ]


def _rows(tree: Tree, file: str, remarks: list[str]) -> list[tuple[Any, Any]]:
    """Names and labels that a file lists; no rows when it tells no labels."""
    where = f"{tree.path}/{file}"
    try:
        text = tree.read(file).decode("utf-8-sig")
        if file.endswith(".csv"):
            listed: Any = list(csv.DictReader(io.StringIO(text)))
        elif file.endswith(".jsonl"):
            listed = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            listed = json.loads(text)
            listed = listed.get("labels", listed) if isinstance(listed, dict) else listed
            listed = list(listed.items()) if isinstance(listed, dict) else listed
    except (ValueError, RecursionError, csv.Error) as error:
        raise UserError(f"{where}: cannot be read ({one_line(error)}); correct it or make the set again.") from error
    if not listed:
        return []
    if isinstance(listed, list) and all(isinstance(row, dict) for row in listed):
        columns = list(dict.fromkeys(str(column) for row in listed for column in row))
        name = next((name for name in _FILE_NAMES if name in columns), None)
        if name is None:
            raise UserError(f"{where}: has no column file_name but {', '.join(columns[:8])}; name it so.")
        label = label_column([column for column in columns if column != name], file, remarks)
        return [(row.get(name), row.get(label)) for row in listed] if label else []
    if not isinstance(listed, list) or not all(isinstance(row, list | tuple) and len(row) == 2 for row in listed):
        raise UserError(f'{where}: "labels" is no list of ["path", label]; make the set again.')
    return [(row[0], row[1]) for row in listed]


def _sidecar_labels(tree: Tree, listing: Listing) -> list[Label] | None:
    """Labels that lie beside the images under the same key, which ends at the first dot; None without."""
    keys = [name.removesuffix(_base(name)) + _base(name).partition(".")[0] for name in listing.names]
    there = set(tree.names)
    for suffix in _SIDECARS:
        if keys[0] + suffix in there and _sidecar_label(tree, keys[0] + suffix) is not None:
            return [_sidecar_label(tree, key + suffix) if key + suffix in there else None for key in keys]
    return None


def _sidecar_label(tree: Tree, name: str) -> Label:
    try:
        content = tree.read(name).decode()
        value = json.loads(content) if name.endswith(".json") else content
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{tree.path}/{name}: cannot be read ({one_line(error)}); correct it or make the set again."
        ) from error
    if isinstance(value, dict):
        value = next((value[name] for name in LABEL_NAMES if name in value), None)
    return class_label(value)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _base(name: str) -> str:
    return name.rpartition("/")[2]
