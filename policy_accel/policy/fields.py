"""Fields of a task: keys of the demonstrations, or columns of them, put side by side."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from policy_accel.data import Episodes
from policy_accel.data.statistics import rounding
from policy_accel.errors import UserError

FIELD = re.compile(r"^(?P<key>[^\[\]]+?)(\[(?P<start>-?\d*):(?P<stop>-?\d*)\])?$")


def parse_field(name: str) -> tuple[str, slice]:
    """ "state[:2]" -> ("state", slice(None, 2)); raises UserError when it is not of the form key or key[a:b]."""
    match = FIELD.match(name)
    if match is None:
        raise UserError(f"task field '{name}' is not of the form key or key[a:b], for example state[:2].")
    start, stop = (int(match[part]) if match[part] else None for part in ("start", "stop"))
    return match["key"], slice(start, stop)


def keys_of(fields: Sequence[str]) -> list[str]:
    """The keys that the fields take from, each once, in order."""
    return list(dict.fromkeys(parse_field(name)[0] for name in fields))


def columns_of(name: str, shape: Sequence[int]) -> range:
    """The columns that a field takes of a key whose steps have `shape`, flattened.

    Raises:
        UserError: a field that is not "key" or "key[a:b]", that goes past the key's columns, or takes none.
    """
    key, rows = parse_field(name)
    width = math.prod(shape)
    taken = range(width)[rows]
    if not taken or any(bound is not None and abs(bound) > width for bound in (rows.start, rows.stop)):
        what = "goes past" if taken else "takes none of"
        raise UserError(f"task field '{name}' {what} the columns of {key}, which has {width}, from 0 to {width - 1}.")
    return taken


def flat(values: Any, steps: int) -> np.ndarray:
    """The numbers of each step in one row: [*N, *S] -> [*N, D], where `steps` axes are those of N; D is 1 for S = ().

    Demonstrations, environments and `Policy.act` all flatten by it.
    """
    array = np.asarray(values)
    return array.reshape(*array.shape[:steps], math.prod(array.shape[steps:]))


def columns(episodes: Episodes, fields: Sequence[str]) -> np.ndarray:
    """Concatenate the named fields, flattened per step, to [N, D]; no field gives [N, 0].

    The result is float32, or float64 where that holds more of the data.

    Raises:
        UserError: as `columns_of`.
    """
    parts = [np.zeros((episodes.steps, 0), dtype=np.float32)]
    for name in fields:
        values = episodes.arrays[parse_field(name)[0]]
        taken = columns_of(name, values.shape[1:])
        part = flat(values, 1)[:, taken.start : taken.stop]
        parts.append(part.astype(np.result_type(part.dtype, np.float32), copy=False))
    return np.concatenate(parts, axis=1)


def precisions(episodes: Episodes, fields: Sequence[str]) -> np.ndarray:
    """How exactly each of `columns(episodes, fields)` was recorded: `rounding` [D] of its type."""
    parts = [np.zeros(0)]
    for name in fields:
        values = episodes.arrays[parse_field(name)[0]]
        parts.append(np.full(len(columns_of(name, values.shape[1:])), rounding(values.dtype)))
    return np.concatenate(parts)


def positions(episodes: Episodes, name: str, fields: Sequence[str]) -> tuple[int, ...]:
    """Where the columns of the field `name` stand in `columns(episodes, fields)`.

    Raises:
        UserError: a column of it is not among `fields`.
    """

    def labels(field: str) -> list[tuple[str, int]]:
        key = parse_field(field)[0]
        return [(key, column) for column in columns_of(field, episodes.arrays[key].shape[1:])]

    present = {label: place for place, label in enumerate(label for field in fields for label in labels(field))}
    missing = [label for label in labels(name) if label not in present]
    if missing:
        raise UserError(
            f"task field '{name}' takes column {missing[0][1]} of {missing[0][0]}, which task.observation="
            f"[{', '.join(fields)}] does not hold; name columns of the observation."
        )
    return tuple(present[label] for label in labels(name))
