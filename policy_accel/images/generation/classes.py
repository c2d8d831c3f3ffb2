"""The classes of an image model: as people name them, and as its network is told them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from policy_accel.errors import UserError, did_you_mean

QUOTES = ('"', "'")


def class_condition(labels: Tensor | None, count: int, *, classes: int, condition_dim: int) -> Tensor | None:
    """Conditions of `count` images, float32 [count, condition_dim]; None for a model without any.

    The first `classes` numbers are one-hot. They are zero, the null class, without labels. Numbers after the classes
    (the parameters of an augmentation) are zero: images as they were before it.

    Raises:
        UserError: labels for a model without classes, or outside 0 .. classes - 1.
    """
    if labels is not None and not classes:
        raise UserError("labels are of no use to a model that was trained without classes; leave them out.")
    if not condition_dim:
        return None
    if labels is None:
        return torch.zeros(count, condition_dim)
    if len(labels) != count:
        raise ValueError(f"{len(labels)} labels for {count} images")
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise UserError(f"label {int(outside[0])} is none of the model's classes; choose 0 to {classes - 1}.")
    # One-hot over the whole condition: labels are below `classes`, so what follows stays zero.
    return one_hot(labels.long(), condition_dim).float()


def class_numbers(text: str, classes: tuple[str, ...]) -> tuple[int, ...]:
    """Numbers of the classes in a comma-separated `text`, or of "all".

    A class is given by its name, else by its number. A name may have commas, and the longest that fits is meant; in
    quotes, single or double, it is meant whole, with a quote of its own written twice: 'crane','crane, bird'.

    Raises:
        UserError: one of them is no class.
    """
    known: dict[str, int] = {}
    for number, name in enumerate(classes):
        known.setdefault(_spelled(name), number)
    if text.strip() == "all" and "all" not in known:
        return tuple(range(len(classes)))
    longest = 1 + max((name.count(",") for name in classes), default=0)
    pieces, numbers = text.split(","), list[int]()
    while pieces:
        for length in range(min(longest, len(pieces)), 0, -1):
            given = _spelled(",".join(pieces[:length]))
            number = known.get(given, known.get(_unquoted(given), -1))
            if number >= 0:
                break
        else:
            length = _quoted_length(pieces)
            number = _class_number(_unquoted(_spelled(",".join(pieces[:length]))), classes)
        numbers.append(number)
        pieces = pieces[length:]
    return tuple(numbers)


def _spelled(name: str) -> str:
    """A name without the space around it and around its commas."""
    return ",".join(piece.strip() for piece in name.split(","))


def _unquoted(name: str) -> str:
    """What stands in quotes, as CSV has it; other text as it is."""
    if len(name) < 2 or name[0] != name[-1] or name[0] not in QUOTES:
        return name
    return name[1:-1].replace(2 * name[0], name[0])


def _quoted_length(pieces: list[str]) -> int:
    """How many pieces belong to the name in quotes that they begin with; 1 for another."""
    first = pieces[0].strip()
    if first.startswith(QUOTES) and not (len(first) > 1 and first.endswith(first[0])):
        for place, piece in enumerate(pieces[1:], start=2):
            if piece.rstrip().endswith(first[0]):
                return place
    return 1


def _class_number(name: str, classes: tuple[str, ...]) -> int:
    if name.lstrip("-").isdecimal():
        if 0 <= int(name) < len(classes):
            return int(name)
        raise UserError(f"label {name} is none of the model's {len(classes)} classes; choose 0 to {len(classes) - 1}.")
    raise UserError(f"label '{name}' is none of the model's classes; {did_you_mean(name, classes)}")
