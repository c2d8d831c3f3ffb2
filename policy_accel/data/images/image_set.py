"""Image sets: decoded, in the one form in which they are handed on, and listed, before they are decoded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from policy_accel.data.images.encoding import Encoding
from policy_accel.data.images.subset import ChannelSubset, ImageArray
from policy_accel.data.tree import Tree, by_number
from policy_accel.errors import UserError

Split = Literal["train", "test"]
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")  # the first that has labels is used
_MOST_CLASSES = 100_000
_PIECE = 4096  # rows looked at together, so that a memory-mapped set is never in memory as a whole
_LABEL_COLUMNS = ["label", "labels", "fine_label", "fine_labels", "class", "class_name", "class_id", "cls", "category"]
_LABEL_COLUMNS += ["target"]


@dataclass(frozen=True)
class ImageSet:
    """Images of one size, or latents of one size, with labels or without.

    Raises:
        UserError: no image, another type or number of axes, labels that do not fit, latents that are not finite.
    """

    # uint8 [N, C, H, W], C 1 or 3, or latents float16 or float32 [N, C, H, W], their moments [N, 2 C, H, W]; may be
    # memory-mapped
    images: ImageArray
    labels: np.ndarray | None  # int64 [N] in 0..number of classes - 1; None without labels
    classes: tuple[str, ...]  # names in the order of the labels; () without labels
    source: str  # where they were read, for messages
    key: str | None = None  # of images in the cache, or mapped: what they were made of; None otherwise
    remarks: tuple[str, ...] = ()  # what was converted, assumed or left out, one sentence each, without the source
    skipped: tuple[str, ...] = ()  # one sentence for each image that could not be read and was left out
    encoding: Encoding | None = None  # of latents, where the set tells how they were made

    def __post_init__(self) -> None:
        if fault := next(self._faults(), None):
            raise UserError(f"{self.source}: {fault}")

    @property
    def latents(self) -> bool:
        """Whether the arrays are latents of an autoencoder, not images."""
        return self.images.dtype.kind == "f"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width of an image, or of a latent."""
        channels, height, width = self.values.shape[1:]
        return channels, height, width

    @property
    def values(self) -> ImageArray:
        """The images or latents [N, C, H, W], of moments the means; not copied."""
        moments = self.encoding is not None and self.encoding.moments
        return ChannelSubset(self.images, np.arange(self.images.shape[1] // 2)) if moments else self.images

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        """SHA-256 that tells this set from any other: of its content, of which a key stands for the images."""
        told = f"{self.key or ''}{self.encoding.numbers() if self.encoding else ''}"
        digest = hashlib.sha256(f"{self.images.dtype.str} {self.images.shape} {self.classes}{told}".encode())
        for array in (self.images if self.key is None else (), () if self.labels is None else self.labels):
            for begin in range(0, len(array), _PIECE):
                digest.update(np.ascontiguousarray(array[begin : begin + _PIECE]).data)
        return digest.hexdigest()

    def _faults(self) -> Iterator[str]:
        kind, shape, labels, count = self.images.dtype, self.images.shape, self.labels, len(self.classes)
        if len(shape) != 4 or 0 in shape:
            yield f"holds an array of shape {list(shape)}; images are [N, C, H, W], one at least."
        if kind not in (np.uint8, np.float16, np.float32):
            yield f"holds {kind} values; images are uint8, latents float16 or float32."
        if kind == np.uint8 and shape[1] not in (1, 3):
            yield f"has images of {shape[1]} channels; known are 1 (grey) and 3 (RGB)."
        if self.encoding is not None and not self.latents:
            yield "holds images, and tells how an autoencoder made latents; take that file away."
        elif self.encoding is not None:
            yield from self.encoding.faults(shape[1])
        for begin in range(0, len(self) if self.latents else 0, _PIECE):
            for row in np.flatnonzero(~np.isfinite(self.images[begin : begin + _PIECE]).all(axis=(1, 2, 3))):
                yield f"latent {begin + row} has a value that is not finite; encode it again or leave it out."
        if labels is None and count:
            yield f"has {count} class names and no labels; give both or none."
        if labels is None:
            return
        if labels.shape != shape[:1] or labels.dtype != np.int64:
            found = f"{labels.dtype} {list(labels.shape)}"
            yield f"has labels {found} for {len(self)} images; give one integer from 0 for each."
        for row in np.flatnonzero((labels < 0) | (labels >= count)):
            yield f"label {labels[row]} of image {row} is outside 0..{count - 1}, its {count} classes; correct it."


Label = int | str | None
Item = tuple[str, str, Label]
"""Name of an image, what its part is called, as "train", "val" or "unlabeled", and its label, None without."""


class Listing(NamedTuple):
    """The images of a set in a tree by name, none of them decoded; names of the classes in the order of their numbers,
    and how latents were made, where the set tells them; and a sentence for each image that cannot be used."""

    tree: Tree
    items: list[Item]
    classes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    encoding: Encoding | None = None


Form = tuple[str, Callable[[Split], ImageSet | Listing | None]]
"""The name of a form, and what reads a part of the set, or lists all of it; remarks go to the tree."""


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


def number_names(largest: int) -> tuple[str, ...]:
    """Names "0", "1", ... up to the largest label of classes that have no names of their own."""
    return tuple(map(str, range(min(largest + 1, _MOST_CLASSES))))


def part_of(listing: Listing, split: Split, *, labelled: bool) -> Listing | None:
    """One part with its labels numbered, all None without; None when there is no such part.

    Labels that are whole numbers are the numbers of the classes; else they are names, and the classes are those of the
    training part in natural order. An image without a label among others that have one, and one of an unknown class,
    is a fault, or else, where the set need not be `labelled`, leaves the set without labels.
    """
    tree, items, classes = listing[:3]
    usable = {part for _, part, label in items if label is not None} or {part for _, part, _ in items}
    test = next((name for name in TEST_NAMES if name in usable), None)
    if unused := sorted({part for _, part, _ in items} - {*TRAIN_NAMES, test}):
        what = "belongs to no part that is used and is left out"
        tree.remarks.append(f"{', '.join(unused[:5])}: {what}; the parts are train and {test}.")
    labels = {label for _, _, label in items} - {None}
    numbers = [label for label in labels if isinstance(label, int)]
    of_train = sorted({str(label) for _, part, label in items if part in TRAIN_NAMES and label is not None})
    numeric = len(numbers) == len(labels)
    if not labels or not classes:
        classes = number_names(max(numbers, default=-1)) if numeric else tuple(sorted(of_train, key=by_number))
    places = {str(place) if numeric else name: place for place, name in enumerate(classes)}
    known = {label: places[str(label)] for label in labels if str(label) in places}
    items = [item for item in items if item[1] in (TRAIN_NAMES if split == "train" else (test,))]
    unknown = f"is none of those known ({len(classes)} in the training part)"
    lost = {
        name: "has no class, as others have" if label is None else f"its class {label} {unknown}"
        for name, _, label in items
        if classes and label not in known
    }
    if lost and not labelled:
        tree.remarks.append(f"labels are not used: {': '.join(next(iter(lost.items())))}.")
        classes, known, lost = (), {}, {}
    faults = tuple(f"{tree.path}/{name}: {why}; correct it." for name, why in lost.items())
    items = [(name, split, known.get(label)) for name, _, label in items if name not in lost]
    return Listing(tree, items, classes, faults, listing.encoding) if items or faults else None
