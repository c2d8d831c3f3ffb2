"""How files below one root are meant: which are images (or latents), of which part, and of which class."""

from __future__ import annotations

import csv
import io
from pathlib import PurePosixPath
from typing import Any

from policy_accel.data.images.decode import LATENT, SUFFIXES, is_image
from policy_accel.data.images.listing import (
    TEST_NAMES,
    TRAIN_NAMES,
    Form,
    Item,
    Label,
    Listing,
    class_label,
    label_column,
)
from policy_accel.data.tree import Tree
from policy_accel.errors import UserError, one_line
from policy_accel.parsing import from_json

_LABEL_FILES = ("dataset.json", "metadata.jsonl", "metadata.csv")
_FILE_COLUMNS = ("file_name", "filename", "file", "image", "path")


def files_form(tree: Tree) -> Form | None:
    """Image files or latents.

    Folders train/ and test/ (or training/, testing/, val/, valid/, validation/, of any case) are parts, above the
    folders of classes or directly below them; without them all files train. Labels are those of dataset.json (as
    StyleGAN and EDM write it), metadata.jsonl or metadata.csv (Hugging Face), else those of KEY.cls or KEY.json beside
    KEY.png (WebDataset), else the first folders, and files without any folder have none. One folder around the whole
    set does not count.
    """
    images = [name for name in tree.names if _suffix(name) in (*SUFFIXES, LATENT)]
    bare = [name for name in tree.names if not images and not _suffix(name)]
    if bare and is_image(tree.read(bare[0])):
        images = [name for name in bare if is_image(tree.read(name))]
    if not images:
        return None
    kind = "latents" if _suffix(images[0]) == LATENT else "images"
    bases = {_base(name) for name in tree.names}
    told = next((f"{kind} with {file}" for file in _LABEL_FILES if file in bases), None)
    sidecars = any(base.endswith(".cls") for base in bases)
    return told or f"{'WebDataset' if sidecars else 'files'} of {kind}", lambda split: _list(tree, images)


def _list(tree: Tree, names: list[str]) -> Listing:
    latents = [name for name in names if _suffix(name) == LATENT]
    if latents and len(latents) < len(names):
        other = next(name for name in names if _suffix(name) != LATENT)
        raise UserError(f"{tree.path}: holds latents ({latents[0]}) beside images ({other}); keep them apart.")
    listing = Listing(str(tree.path), [], tree.read, tree.file, remarks=list(tree.remarks))
    placed = _placed(names)
    if label_files := [name for name in tree.names if _base(name) in _LABEL_FILES]:
        told = _told(tree, label_files, listing)
        labels = [told.get(name) for name in names]
    else:
        folders: list[Label] = [steps[0] if len(steps) > 1 else None for _, steps in placed]
        labels = _beside(tree, names) or folders
    listing.items = [Item(name, part, label) for name, (part, _), label in zip(names, placed, labels, strict=True)]
    return listing


def _placed(names: list[str]) -> list[tuple[str, list[str]]]:
    """The part of each name and the other steps of its path, below the folder that is around all: it is no class."""
    paths = [name.split("/") for name in names]
    while len({path[0] for path in paths}) == 1 and min(map(len, paths)) > 2:
        if paths[0][0].lower() in TRAIN_NAMES:
            break
        paths = [path[1:] for path in paths]
    for level in (0, 1):  # above the classes, or below them
        tops = {path[level].lower() if len(path) > level + 1 else "" for path in paths}
        train, test = tops.intersection(TRAIN_NAMES), tops.intersection(TEST_NAMES)
        if train and (test or tops == train) and (level == 0 or tops == train | test):
            return [(path[level], path[:level] + path[level + 1 :]) for path in paths]
    return [("train", path) for path in paths]


def _told(tree: Tree, files: list[str], listing: Listing) -> dict[str, Label]:
    """Labels by name from files that list them; names that are not there are faults."""
    labels: dict[str, Label] = {}
    for file in files:
        folder, rows = file.removesuffix(_base(file)), _rows(tree, file, listing.remarks)
        found = {folder + str(name).replace("\\", "/"): class_label(label) for name, label in rows}
        labels |= found
        if rows and set(found.values()) == {None}:
            listing.remarks.append(f"the labels in {file} are no classes, such as {rows[0][1]}; they are not used.")
    if set(labels.values()) - {None}:
        gone = sorted(labels.keys() - set(tree.names))
        listing.faults += [f"{tree.path}/{name}: is listed in {files[0]} and not there; add it." for name in gone]
    return labels


def _rows(tree: Tree, file: str, remarks: list[str]) -> list[tuple[Any, Any]]:
    """Names and labels that a file lists; no rows when it tells no labels."""
    listed, where = _parsed(tree, file), f"{tree.path}/{file}"
    listed = listed.get("labels", listed) if isinstance(listed, dict) else listed
    listed = list(listed.items()) if isinstance(listed, dict) else listed or []
    if listed and isinstance(listed, list) and all(isinstance(row, dict) for row in listed):
        columns = list(dict.fromkeys(str(column) for row in listed for column in row))
        name = next((name for name in _FILE_COLUMNS if name in columns), None)
        if name is None:
            raise UserError(f"{where}: has no column file_name but {', '.join(columns[:8])}; name it so.")
        label = label_column([column for column in columns if column != name], file, remarks)
        return [(row.get(name), row.get(label)) for row in listed] if label else []
    if not isinstance(listed, list) or not all(isinstance(row, list | tuple) and len(row) == 2 for row in listed):
        raise UserError(f'{where}: "labels" is no list of ["path", label]; make the set again.')
    return listed


def _beside(tree: Tree, names: list[str]) -> list[Label] | None:
    """Labels that lie beside the images under the same key, which ends at the first dot; None without."""
    keys, there = [name.removesuffix(_base(name)) + _base(name).partition(".")[0] for name in names], set(tree.names)

    def label(name: str) -> Label:
        value = _parsed(tree, name) if name in there else None
        return class_label(value.get(label_column(value, name, [])) if isinstance(value, dict) else value)

    suffix = next((suffix for suffix in (".cls", ".json") if label(keys[0] + suffix) is not None), None)
    return [label(key + suffix) for key in keys] if suffix else None


def _parsed(tree: Tree, name: str) -> Any:
    """What a file of text holds: rows, a value, or the text."""
    try:
        text = tree.read(name).decode("utf-8-sig")
        if name.endswith(".csv"):
            return list(csv.DictReader(io.StringIO(text)))
        if name.endswith(".jsonl"):
            return [from_json(line) for line in text.splitlines() if line.strip()]
        return from_json(text) if name.endswith(".json") else text
    except (ValueError, csv.Error) as error:
        raise UserError(f"{tree.path}/{name}: cannot be read ({one_line(error)}); correct it.") from error


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _base(name: str) -> str:
    return name.rpartition("/")[2]
