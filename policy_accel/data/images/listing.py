"""An image set before it is decoded: its encoded images by name, the part of each, and its label as it was written."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from policy_accel.data.images.decode import LATENT, SUFFIXES, is_image
from policy_accel.data.images.image_set import ImageSet, Split
from policy_accel.data.tree import Tree, by_number
from policy_accel.errors import UserError, one_line
from policy_accel.parsing import from_json

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")  # the first that has labels is used
MOST_CLASSES = 100_000
_LABEL_COLUMNS = ["label", "labels", "fine_label", "fine_labels", "class", "class_name", "class_id", "cls", "category"]
_LABEL_COLUMNS += ["target"]
_FILE_COLUMNS = ("file_name", "filename", "file", "image", "path")
_LABEL_FILES = ("dataset.json", "metadata.jsonl", "metadata.csv")

Label = int | str | None
Item = tuple[str, str, Label]
"""Name of an image, what its part is called, as "train", "val" or "unlabeled", and its label, None without."""


class Listing(NamedTuple):
    """The images of a set, none of them decoded, in a tree by name; names of the classes in the order of their numbers,
    where the set tells them; what was assumed or left out; and a sentence for each image that cannot be used."""

    tree: Tree
    items: list[Item]
    classes: tuple[str, ...]
    remarks: list[str]
    faults: list[str]


Form = tuple[str, Callable[[Split], ImageSet | Listing | None]]
"""The name of a form, and what reads a part of the set, or lists all of it."""


def files_form(tree: Tree) -> Form | None:
    """Image files or latents, whose folders train/ and test/ (or TEST_NAMES, of any case), above the folders of classes
    or directly below them, are parts; without them all files train. Labels are those of dataset.json (as StyleGAN and
    EDM write it), metadata.jsonl or metadata.csv (Hugging Face), else those of KEY.cls or KEY.json beside KEY.png
    (WebDataset), else the first folders, but for one folder around the whole set."""
    suffixes = {name: PurePosixPath(name).suffix.lower() for name in tree.names}
    names = [name for name, suffix in suffixes.items() if suffix in (*SUFFIXES, LATENT)]
    bare = [name for name, suffix in suffixes.items() if not names and not suffix]
    if bare and is_image(tree.read(bare[0])):
        names = [name for name in bare if is_image(tree.read(name))]
    if not names:
        return None
    kinds = {"latents" if suffixes[name] == LATENT else "images": name for name in names}
    files = [name for name in tree.names if PurePosixPath(name).name in _LABEL_FILES]
    title = f"{'WebDataset' if '.cls' in suffixes.values() else 'files'} of {min(kinds)}"

    def load(split: Split) -> Listing:
        if len(kinds) > 1:
            both = f"latents ({kinds['latents']}) beside images ({kinds['images']})"
            raise UserError(f"{tree.path}: holds {both}; keep them apart.")
        remarks, placed = list(tree.remarks), _placed(names)
        told = dict(pair for file in files for pair in _told(tree, file, remarks))
        gone = sorted(told.keys() - suffixes.keys())
        faults = [f"{tree.path}/{name}: is listed in {files[0]} and not there; add it." for name in gone]
        labels = [told.get(name) for name in names] if files else _beside(tree, names)
        labels = labels or [steps[0] if len(steps) > 1 else None for _, steps in placed]
        items = [(name, part, label) for name, (part, _), label in zip(names, placed, labels, strict=True)]
        return Listing(tree, items, (), remarks, faults)

    return f"{min(kinds)} with {PurePosixPath(files[0]).name}" if files else title, load


def _placed(names: list[str]) -> list[tuple[str, list[str]]]:
    """The part of each name and the other steps of its path, below the folder that is around all: it is no class."""
    paths = [name.split("/") for name in names]
    while len({path[0] for path in paths}) == 1 and min(map(len, paths)) > 2 and paths[0][0].lower() not in TRAIN_NAMES:
        paths = [path[1:] for path in paths]
    for level in (0, 1):  # above the classes, or below them
        tops = {path[level].lower() if len(path) > level + 1 else "" for path in paths}
        train, test = tops.intersection(TRAIN_NAMES), tops.intersection(TEST_NAMES)
        if train and (test or tops == train) and (level == 0 or tops == train | test):
            return [(path[level].lower(), path[:level] + path[level + 1 :]) for path in paths]
    return [("train", path) for path in paths]


def _told(tree: Tree, file: str, remarks: list[str]) -> list[tuple[str, Label]]:
    """Names and labels that a file lists; nothing where it tells no classes."""
    listed, where = _parsed(tree, file), f"{tree.path}/{file}"
    listed = listed.get("labels", listed) if isinstance(listed, dict) else listed
    rows: Any = list(listed.items()) if isinstance(listed, dict) else listed or []
    if rows and isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        columns = list(dict.fromkeys(str(column) for row in rows for column in row))
        name = next((name for name in _FILE_COLUMNS if name in columns), None)
        if name is None:
            raise UserError(f"{where}: has no column file_name but {', '.join(columns[:8])}; name it so.")
        label = label_column([column for column in columns if column != name], file, remarks)
        rows = [(row.get(name), row.get(label)) for row in rows] if label else []
    if not isinstance(rows, list) or not all(isinstance(row, list | tuple) and len(row) == 2 for row in rows):
        raise UserError(f'{where}: "labels" is no list of ["path", label]; make the set again.')
    labels = [class_label(label) for _, label in rows]
    if rows and set(labels) == {None}:
        remarks.append(f"the labels in {file} are no classes, such as {rows[0][1]}; they are not used.")
        return []
    names = [str(PurePosixPath(file).parent / str(name).replace("\\", "/")) for name, _ in rows]
    return list(zip(names, labels, strict=True))


def _beside(tree: Tree, names: list[str]) -> list[Label]:
    """Labels that lie beside the images under the same key, which ends at the first dot; nothing without."""

    def label(name: str, suffix: str) -> Label:
        beside = re.sub(r"(\.[^/]*)?$", suffix, name, count=1)
        value = _parsed(tree, beside) if beside in tree.places else None
        return class_label(value.get(label_column(value, beside, [])) if isinstance(value, dict) else value)

    suffix = next((suffix for suffix in (".cls", ".json") if label(names[0], suffix) is not None), None)
    return [label(name, suffix) for name in names] if suffix else []


def _parsed(tree: Tree, name: str) -> Any:
    """What a file of text holds: rows, a value, or the text."""
    try:
        text = tree.read(name).decode("utf-8-sig")
        if name.endswith(".csv"):
            return list(csv.DictReader(io.StringIO(text)))
        if name.endswith(".jsonl"):
            return [from_json(line) for line in text.splitlines() if line.strip()]
        return from_json(text) if name.endswith(".json") else text.strip()
    except (ValueError, csv.Error) as error:
        raise UserError(f"{tree.path}/{name}: cannot be read ({one_line(error)}); correct it.") from error


def class_label(value: Any) -> Label:
    """The number of a class, which may be written as text, as a float or as a one-hot list, or its name; None for what
    is neither, or says that there is none, as null, "" and -1 do."""
    if isinstance(value, list) and len(value) > 1 and sorted(value, key=str) == [0] * (len(value) - 1) + [1]:
        return value.index(1)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    text = str(int(value) if isinstance(value, bool) else value).strip() if isinstance(value, int | str) else ""
    if re.fullmatch(r"\d{1,18}", text, re.ASCII):
        return int(text)
    return text if isinstance(value, str) and not re.fullmatch(r"(-\d+)?", text, re.ASCII) else None


def label_column(columns: Iterable[str], where: str, remarks: list[str]) -> str | None:
    """Which of the columns holds the labels; a remark names others that might, or what there is instead."""
    found = [name for name in _LABEL_COLUMNS if name in columns]
    if not found:
        known = ", ".join(_LABEL_COLUMNS[:3])
        remarks.append(f"{where} has no column of labels ({known}, ...) but {', '.join(columns)}.")
    if len(found) > 1:
        remarks.append(f"{where}: the labels are its {found[0]}, not {', '.join(found[1:])}.")
    return found[0] if found else None


def split_word(path: str) -> str | None:
    """The word in the name of a file, or of a folder of it, that tells the part: train in data/train-00000-of-00002."""
    words = [word for step in reversed(path.lower().split("/")) for word in re.split(r"[-._]", step)]
    return next((word for word in words if word in (*TRAIN_NAMES, *TEST_NAMES)), None)


def number_names(largest: int, source: str) -> tuple[str, ...]:
    """Names "0", "1", ... up to the largest label of classes that have no names of their own."""
    if largest >= MOST_CLASSES:
        raise UserError(f"{source}: label {largest} is not a class number; they count from 0 to {MOST_CLASSES - 1}.")
    return tuple(map(str, range(largest + 1)))


def part_of(listing: Listing, split: Split, *, labelled: bool) -> Listing | None:
    """One part with its labels numbered, all None without; None when there is no such part.

    Labels that are whole numbers are the numbers of the classes; else they are names, and the classes are those of the
    training part in natural order. An image without a label among others that have one, and one of an unknown class,
    is a fault, or else, where the set need not be `labelled`, leaves the set without labels.
    """
    tree, items, classes, remarks = listing.tree, listing.items, listing.classes, list(listing.remarks)
    usable = {part for _, part, label in items if label is not None} or {part for _, part, _ in items}
    test = next((name for name in TEST_NAMES if name in usable), None)
    if unused := sorted({part for _, part, _ in items} - {*TRAIN_NAMES, test}):
        what = "belongs to no part that is used and is left out"
        remarks.append(f"{', '.join(unused[:5])}: {what}; the parts are train and {test}.")
    labels = {label for _, _, label in items} - {None}
    numbers = [label for label in labels if isinstance(label, int)]
    of_train = sorted({str(label) for _, part, label in items if part in TRAIN_NAMES and label is not None})
    if not labels:
        classes = ()
    elif not classes:
        numeric = len(numbers) == len(labels)
        classes = number_names(max(numbers), str(tree.path)) if numeric else tuple(sorted(of_train, key=by_number))
    names = map(str, range(len(classes))) if len(numbers) == len(labels) else classes
    places = {name: place for place, name in enumerate(names)}
    known = {label: places[str(label)] for label in labels if str(label) in places}
    items = [item for item in items if item[1] in (TRAIN_NAMES if split == "train" else (test,))]
    unknown = f"is none of those known ({len(classes)} in the training part)"
    lost = {
        name: "has no class, as others have" if label is None else f"its class {label} {unknown}"
        for name, _, label in items
        if classes and label not in known
    }
    if lost and not labelled:
        remarks.append(f"labels are not used: {': '.join(next(iter(lost.items())))}.")
        classes, known, lost = (), {}, {}
    faults = listing.faults if split == "train" else []
    faults = faults + [f"{tree.path}/{name}: {why}; correct it." for name, why in lost.items()]
    items = [(name, split, known.get(label)) for name, _, label in items if name not in lost]
    return Listing(tree, items, classes, remarks, faults) if items or faults else None
