"""Names for the arms of a comparison: the method, and the settings by which runs of one method differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from policy_accel.errors import typed_as
from policy_accel.sweep.grid import short_keys

MANY = 3
"""Of more settings than these a name has only as many as tell the arms apart."""


class Arm(NamedTuple):
    """The name of a run's arm, and the keys that it names."""

    arm: str
    named: tuple[str, ...]


def arm_names(runs: Sequence[tuple[str, dict[str, Any]]]) -> list[Arm]:
    """Names for runs, given as (method, settings by dotted key): equal for equal settings, different otherwise.

    Only differences among runs of one method are named, so that what a method sets itself is not.
    """
    names: list[Arm] = []
    for method, settings in runs:
        family = _distinct([other for name, other in runs if name == method])
        keys = _telling(family)
        names.append(Arm(" ".join([method, *_labels(keys, settings, family)]), tuple(keys)))
    return names


def printable(value: Any) -> str:
    """Text of a file of somebody's, without what would command a terminal."""
    return "".join(character if character.isprintable() else "?" for character in str(value))


def _distinct(settings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({_frozen(one): one for one in settings}.values())


def _frozen(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _telling(family: Sequence[dict[str, Any]]) -> list[str]:
    """The keys that differ; where a choice (`.name`) differs, not the settings that only some choices have."""
    keys = list(dict.fromkeys(key for settings in family for key in settings))
    differing = [key for key in keys if len({_value(settings, key) for settings in family}) > 1]
    chosen = {key.removesuffix("name") for key in differing if key.endswith(".name")}
    kept = [
        key
        for key in differing
        if not any(key.startswith(section) and key != f"{section}name" for section in chosen)
        or len({_value(settings, key) for settings in family if key in settings}) > 1
    ]
    if len(kept) <= MANY:
        return kept
    few: list[str] = []
    for key in sorted(kept, key=lambda key: not key.endswith(".name")):
        if _count(family, [*few, key]) > _count(family, few):
            few.append(key)
    return few


def _count(family: Sequence[dict[str, Any]], keys: Sequence[str]) -> int:
    return len({tuple(_value(settings, key) for key in keys) for settings in family})


def _value(settings: dict[str, Any], key: str) -> str:
    return _frozen(settings[key]) if key in settings else ""


def _labels(keys: Sequence[str], settings: dict[str, Any], family: Sequence[dict[str, Any]]) -> list[str]:
    short = dict(zip(keys, short_keys([key.removesuffix(".name") for key in keys]), strict=True))
    return [printable(f"{short[key]}={_shown(key, settings[key], family)}") for key in keys if key in settings]


def _shown(key: str, value: Any, family: Sequence[dict[str, Any]]) -> str:
    """A value as it is typed; of paths the last part, where that tells them apart."""
    if isinstance(value, str):
        paths = {str(settings[key]) for settings in family if key in settings}
        return PurePath(value).name if len({PurePath(path).name for path in paths}) == len(paths) else value
    if isinstance(value, float):
        return repr(value)
    return typed_as(value).replace(" ", "")
