"""An image set before it is decoded: its encoded images by name, the part of each, and its label as it was written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from policy_accel.data.images.image_set import ImageSet, Split
from policy_accel.errors import UserError

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")  # the first that has labels is used
MOST_CLASSES = 100_000
LABEL_COLUMNS = (
    *("label", "labels", "fine_label", "fine_labels", "class", "class_name", "class_id"),
    *("cls", "category", "target"),
)

Label = int | str | None


class Item(NamedTuple):
    """An image: its name, what its part is called, as "train", "val" or "unlabeled", and its label, None without."""

    name: str
    part: str
    label: Label


@dataclass
class Listing:
    """The images of a set, none of them decoded: what reads one by its name, and the file on the disk that it is, or
    is in; names of the classes in the order of their numbers, where the set tells them; what was assumed or left out;
    and a sentence for each image that cannot be used."""

    source: str
    items: list[Item]
    read: Callable[[str], bytes]
    file: Callable[[str], Path]
    classes: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


Form = tuple[str, Callable[[Split], ImageSet | Listing | None]]
"""The name of a form, and what reads a part of the set, or lists all of it."""


def part_of(listing: Listing, split: Split, *, labelled: bool) -> Listing | None:
    """One part with its labels numbered, all None without; None when there is no such part.

    Labels that are whole numbers are the numbers of the classes; else they are names, and the classes are those of the
    training part in natural order. An image without a label among others that have one, and one of an unknown class,
    is a fault, or else, where the set need not be `labelled`, leaves the set without labels.
    """
    usable = {item.part.lower() for item in listing.items if item.label is not None}
    usable = usable or {item.part.lower() for item in listing.items}
    test = next((name for name in TEST_NAMES if name in usable), None)
    items = [item for item in listing.items if item.part.lower() in (TRAIN_NAMES if split == "train" else (test,))]
    remarks, faults = list(listing.remarks), list(listing.faults) if split == "train" else []
    if unused := sorted({item.part for item in listing.items if item.part.lower() not in (*TRAIN_NAMES, test)}):
        shown = ", ".join(map(printable, unused[:5]))
        remarks.append(f"{shown}: belongs to no part that is used and is left out; the parts are train and {test}.")
    classes, numbers = _classes(listing)

    def fault(item: Item) -> str:
        known = f"none of those known ({len(classes)} in the training part)"
        what = "has no class, as others have" if item.label is None else f"its class {item.label} is {known}"
        return f"{item.name}: {what}; correct it." if numbers and item.label not in numbers else ""

    if not labelled and (lost := next(filter(None, map(fault, items)), None)):
        remarks.append(f"labels are not used: {lost}")
        classes, numbers = (), {}
    kept = []
    for item in items:
        if printable(item.name) != item.name:
            faults.append(f"{listing.source}/{printable(item.name)}: its name is not UTF-8; rename it.")
        elif why := fault(item):
            faults.append(f"{listing.source}/{why}")
        else:
            kept.append(Item(item.name, split, numbers.get(item.label)))
    return replace(listing, items=kept, classes=classes, remarks=remarks, faults=faults) if kept or faults else None


def _classes(listing: Listing) -> tuple[tuple[str, ...], dict[Label, int]]:
    """Names of the classes, and the number of each label; nothing without labels."""
    labels = {item.label for item in listing.items} - {None}
    numbers = [label for label in labels if isinstance(label, int)]
    if not labels:
        return (), {}
    if len(numbers) == len(labels):
        names = listing.classes or number_names(max(numbers), listing.source)
        return names, {number: number for number in numbers if number < len(names)}
    of_train = {item.label for item in listing.items if item.part.lower() in TRAIN_NAMES} - {None}
    places = {name: place for place, name in enumerate(listing.classes or sorted(map(str, of_train), key=natural))}
    return tuple(places), {label: places[str(label)] for label in labels if str(label) in places}


def number_names(largest: int, source: str) -> tuple[str, ...]:
    """Names "0", "1", ... up to the largest label of classes that have no names of their own."""
    if largest >= MOST_CLASSES:
        raise UserError(f"{source}: label {largest} is not a class number; they count from 0 to {MOST_CLASSES - 1}.")
    return tuple(map(str, range(largest + 1)))


def class_label(value: Any) -> Label:
    """The number of a class, which may be written as text, as a float or as a one-hot list, or its name; None for what
    is neither, or says that there is none, as null, "" and -1 do."""
    if isinstance(value, list) and len(value) > 1 and sorted(value, key=str) == [0] * (len(value) - 1) + [1]:
        return value.index(1)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    text = str(value).strip() if isinstance(value, int | str) else ""
    if re.fullmatch(r"\d{1,18}", text, re.ASCII):
        return int(text)
    return text if isinstance(value, str) and not re.fullmatch(r"(-\d+)?", text, re.ASCII) else None


def label_column(columns: Iterable[str], where: str, remarks: list[str]) -> str | None:
    """Which of the columns holds the labels; a remark names others that might, or what there is instead."""
    columns = list(columns)
    found = [name for name in LABEL_COLUMNS if name in columns]
    if not found:
        known = ", ".join(LABEL_COLUMNS[:3])
        remarks.append(f"{where} has no column of labels ({known}, ...) but {', '.join(columns)}.")
    elif len(found) > 1:
        remarks.append(f"{where}: the labels are its {found[0]}, not {', '.join(found[1:])}.")
    return found[0] if found else None


def split_word(path: str) -> str | None:
    """The word in the name of a file, or of a folder of it, that tells the part: train in data/train-00000-of-00002."""
    words = [word for step in reversed(path.lower().split("/")) for word in re.split(r"[-._]", step)]
    return next((word for word in words if word in (*TRAIN_NAMES, *TEST_NAMES)), None)


def natural(name: str) -> tuple[list[str | int], str]:
    """Sorts class2 before class10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name


def printable(name: str) -> str:
    """A name of a file, with what is not UTF-8 in it as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
