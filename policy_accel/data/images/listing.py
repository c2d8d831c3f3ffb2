"""An image set before it is decoded: its encoded images by name, the part of each, and its label as it was written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policy_accel.data.images.image_set import Split
from policy_accel.errors import UserError

MOST_CLASSES = 100_000
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")  # the first that is there is the test part
LABEL_NAMES = [
    "label",
    "labels",
    "fine_label",
    "fine_labels",
    "class",
    "class_name",
    "class_id",
    "cls",
    "category",
    "target",
]

Label = int | str | None


@dataclass
class Listing:
    """The images of a set, none of them decoded.

    Attributes:
        source: the set, for messages.
        names: of the images.
        splits: part of each image; None for one that belongs to no part.
        labels: of each image, None where it has none; the whole list is None for a set without labels.
        read: content of an image, by name.
        stamp: for a name a text that changes when its content does.
        classes: names of the classes in the order of their numbers, where the set tells them.
        latents: whether the images are arrays of latents.
        faults: sentence without its full stop for each image that cannot be used.
        remarks: what was assumed or left out, one sentence each.
    """

    source: str
    names: list[str]
    splits: list[Split | None]
    labels: list[Label] | None
    read: Callable[[str], bytes]
    stamp: Callable[[str], str]
    classes: tuple[str, ...] = ()
    latents: bool = False
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """What belongs to one part: names, labels int64 [N] (None without), names of the classes, and the faults of it."""

    names: tuple[str, ...]
    labels: np.ndarray | None
    classes: tuple[str, ...]
    faults: tuple[str, ...]


def part_of(listing: Listing, split: Split) -> Part | None:
    """Take out one part and number its labels; None when there is no such part.

    Labels that are whole numbers are the numbers of the classes; else they are names, and the classes are those of the
    training part in natural order. Images without a label among others that have one, and those of an unknown class,
    become faults.
    """
    mine = [place for place, found in enumerate(listing.splits) if found == split]
    if not mine:
        return None
    classes, numbers = _classes(listing)
    faults = listing.faults if split == "train" else []
    names, labels = [], []
    for place in mine:
        name = listing.names[place]
        label = listing.labels[place] if listing.labels is not None else None
        if printable(name) != name:
            faults.append(f"{listing.source}/{printable(name)}: its name is not UTF-8; rename it")
        elif numbers and label not in numbers:
            what = "has no class, as others have" if label is None else f"its class {label} is none of those known"
            faults.append(f"{listing.source}/{name}: {what} ({len(classes)} in the training part); correct it")
        else:
            names.append(name)
            labels.append(numbers.get(label, 0))
    return Part(tuple(names), np.array(labels, np.int64) if numbers else None, classes, tuple(faults))


def _classes(listing: Listing) -> tuple[tuple[str, ...], dict[Label, int]]:
    """Names of the classes, and the number of each label; nothing without labels."""
    known = {label for label in listing.labels or () if label is not None}
    if not known:
        return (), {}
    if all(isinstance(label, int) for label in known):
        names = listing.classes or number_names(max(label for label in known if isinstance(label, int)), listing.source)
        return names, {number: number for number in range(len(names))}
    assert listing.labels is not None
    if not all(isinstance(label, str) for label in known):
        listing.labels = [label if label is None else str(label) for label in listing.labels]
    of_train = {str(label) for label, split in zip(listing.labels, listing.splits, strict=True) if split == "train"}
    names = listing.classes or tuple(sorted(of_train - {"None"}, key=natural))
    return names, {name: number for number, name in enumerate(names)}


def number_names(largest: int, source: str) -> tuple[str, ...]:
    """Names "0", "1", ... up to the largest label of classes that have no names of their own."""
    if largest >= MOST_CLASSES:
        raise UserError(f"{source}: label {largest} is not a class number; they count from 0 to {MOST_CLASSES - 1}.")
    return tuple(map(str, range(largest + 1)))


def class_label(value: Any) -> Label:
    """A label from a file: the number of a class or its name; None when it says that there is none, or is neither.

    Whole numbers may be written as text, as floats or as a one-hot list; null, "" and -1 say that there is none.
    """
    if isinstance(value, list) and len(value) > 1 and sorted(value, key=str) == [0] * (len(value) - 1) + [1]:
        return value.index(1)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    if not isinstance(value, str | int | float) or re.fullmatch(r"(-\d+)?", text, re.ASCII):
        return None
    if re.fullmatch(r"\d{1,18}", text, re.ASCII):
        return int(text)
    return text if isinstance(value, str) else None


def label_column(columns: Iterable[str], where: str, remarks: list[str]) -> str | None:
    """Which of the columns holds the labels; a remark names others that might, or what there is instead."""
    columns = list(columns)
    found = [name for name in LABEL_NAMES if name in columns]
    if not found:
        remarks.append(f"{where} has no column of labels ({', '.join(LABEL_NAMES[:3])}, ...) but {', '.join(columns)}.")
    elif len(found) > 1:
        remarks.append(f"{where}: the labels are its {found[0]}, not {', '.join(found[1:])}.")
    return found[0] if found else None


def split_named(names: Iterable[str], remarks: list[str]) -> dict[str, Split | None]:
    """The part that each of the folders or files called so is of, without case; a remark names what is in none."""
    names = sorted(set(names))
    test = next((known for known in TEST_NAMES if known in {name.lower() for name in names}), None)
    found: dict[str, Split | None] = {
        name: "train" if name.lower() in TRAIN_NAMES else "test" if name.lower() == test else None for name in names
    }
    unused = [printable(name) for name, split in found.items() if split is None]
    if unused:
        remarks.append(f"{', '.join(unused[:5])} belong to no part and are left out; the parts are train and {test}.")
    return found


def split_word(path: str) -> str | None:
    """The word in the name of a file, or of a folder of it, that tells the part: train in data/train-00000-of-00002."""
    for step in reversed(path.lower().split("/")):
        for word in re.split(r"[-._]", step):
            if word in (*TRAIN_NAMES, *TEST_NAMES):
                return word
    return None


def natural(name: str) -> tuple[list[str | int], str]:
    """Sorts class2 before class10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name


def printable(name: str) -> str:
    """A name of a file, with what is not UTF-8 in it as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
