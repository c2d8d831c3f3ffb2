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
TEST_NAMES = (
    "test",
    "testing",
    "val",
    "valid",
    "validation",
)  # the first that has labels is used
LABEL_NAMES = (
    *("label", "labels", "fine_label", "fine_labels", "class", "class_name", "class_id"),
    *("cls", "category", "target"),
)

Label = int | str | None


@dataclass
class Listing:
    """The images of a set, none of them decoded.

    Attributes:
        source: the set, for messages.
        names: of the images.
        parts: what the part of each image is called, as "train", "val" or "unlabeled".
        labels: of each image, None where it has none; empty for a set without labels.
        read: content of an image, by name.
        stamp: for a name a text that changes when its content does.
        classes: names of the classes in the order of their numbers, where the set tells them.
        latents: whether the images are arrays of latents.
        faults: sentence without its full stop for each image that cannot be used.
        remarks: what was assumed or left out, one sentence each.
    """

    source: str
    names: list[str]
    parts: list[str]
    labels: list[Label]
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


def part_of(listing: Listing, split: Split, *, labelled: bool = True) -> Part | None:
    """Take out one part and number its labels; None when there is no such part.

    Labels that are whole numbers are the numbers of the classes; else they are names, and the classes are those of the
    training part in natural order. An image without a label among others that have one, and one of an unknown class,
    is a fault, or else, where the set need not be `labelled`, leaves the set without labels.
    """
    labels = listing.labels or [None] * len(listing.names)
    with_labels = {part for part, label in zip(listing.parts, labels, strict=True) if label is not None}
    usable = {part.lower() for part in with_labels or listing.parts}
    test = next((name for name in TEST_NAMES if name in usable), None)
    wanted = TRAIN_NAMES if split == "train" else (test,)
    unused = sorted({part for part in listing.parts if part.lower() not in (*TRAIN_NAMES, test)})
    if unused and split == "train":
        listing.remarks.append(
            f"{', '.join(map(printable, unused[:5]))}: belongs to no part that is used and is left out; the parts are "
            f"train and {test}."
        )
    of_train = {label for part, label in zip(listing.parts, labels, strict=True) if part.lower() in TRAIN_NAMES}
    classes, numbers = _classes(listing, of_train - {None}, set(labels) - {None})
    faults, unlabelled = listing.faults if split == "train" else [], []
    names, found = [], []
    for name, part, label in zip(listing.names, listing.parts, labels, strict=True):
        if part.lower() not in wanted:
            continue
        number = numbers.get(label, numbers.get(str(label)))
        if printable(name) != name:
            faults.append(f"{listing.source}/{printable(name)}: its name is not UTF-8; rename it")
        elif numbers and number is None:
            what = "has no class, as others have" if label is None else f"its class {label} is none of those known"
            unlabelled.append(f"{listing.source}/{name}: {what} ({len(classes)} in the training part); correct it")
        if printable(name) == name and (number is not None or not numbers or not labelled):
            names.append(name)
            found.append(number)
    if unlabelled and not labelled:
        listing.remarks.append(f"labels are not used: {unlabelled[0].removeprefix(listing.source + '/')}.")
        unlabelled, numbers, classes = [], {}, ()
    if not names and not faults and not unlabelled:
        return None
    numbered = np.array(found, np.int64) if numbers else None
    return Part(tuple(names), numbered, classes, (*faults, *unlabelled))


def _classes(listing: Listing, of_train: set[Any], known: set[Any]) -> tuple[tuple[str, ...], dict[Label, int]]:
    """Names of the classes, and the number of each label; nothing without labels."""
    if not known:
        return (), {}
    if all(isinstance(label, int) for label in known):
        names = listing.classes or number_names(max(known), listing.source)
        return names, {number: number for number in range(len(names))}
    names = listing.classes or tuple(sorted(map(str, of_train), key=natural))
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
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    text = str(value).strip()
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
