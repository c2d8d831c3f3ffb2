"""Settings as people type them: the text behind `key=` becomes the value that the typed configuration wants.

It is no language. A string is what was typed: blanks, brackets, commas and quotes of a path need no second pair of
quotes (one that is all around it is taken off). Numbers are as people write them: 1e4, 1_000, 4000.0. Nothing at all,
or null, leaves an optional setting without a value. A list is [a, b], where quotes keep a comma inside of a name.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from policy_accel.errors import UserError
from policy_accel.quoting import bracketed, entries, items, unquoted

NOTHING = ("", "null", "Null", "NULL", "None")
SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
LARGEST = 2**63
"""Whole numbers stay below it: those of tensors do."""
_REFERENCE = re.compile(r"(?<!\\)\$\{([\w.]+)\}")


def check_form(overrides: Sequence[str]) -> None:
    """Raise UserError unless each is of the form key=value."""
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not key:
            raise UserError(f"'{override}' is not of the form key=value, for example training.steps=2000.")
        if key[0] in "+~":
            raise UserError(f"'{override}': keys cannot be added or removed; write key=value with a key that exists.")


def given_twice(overrides: Sequence[str]) -> list[str]:
    """A sentence for each key that has another value further on, which is the one that counts."""
    last = dict(override.split("=", 1) for override in overrides)
    first = dict(override.split("=", 1) for override in reversed(overrides))
    return [f"{key} is given twice: {last[key]} counts, not {first[key]}." for key in first if first[key] != last[key]]


class UnknownKeyError(Exception):
    """The configuration has no such key."""


def put(config: DictConfig, key: str, text: str, open_sections: tuple[str, ...] = ()) -> None:
    """Set `key` of a typed configuration to what was typed.

    Args:
        config: made of dataclasses.
        key: of a setting, with dots; below one of the `open_sections`, which are dictionaries, any name.
        text: as typed.
        open_sections: see `key`.

    Raises:
        UnknownKeyError: there is no such setting.
        ValueError: the text is no such value; the message follows "key=text".
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(" has bytes that are not UTF-8; give the path or name another name.") from None
    section = next((name for name in open_sections if key.startswith(f"{name}.")), None)
    kind = _kind(config, section or key)
    if section is not None:
        kind = get_args(kind)[1]
        inside = key[len(section) + 1 :]
        key, names = section, inside.split(".") if kind is Any else [inside]  # names of other dictionaries have dots
    if is_dataclass(kind):
        for name, part in items(text):
            put(config, f"{key}.{name}", part, open_sections)
        return
    value = _with_references(config, read_value(kind, text))
    if section is not None:
        for name in reversed(names):
            value = {name: value}
    try:
        OmegaConf.update(config, key, value, force_add=key in open_sections)
    except OmegaConfBaseException as error:
        raise ValueError(f": {str(error).splitlines()[0].rstrip('.')}.") from error


def _kind(config: DictConfig, key: str) -> Any:
    """The annotation of a setting."""
    above, _, name = key.rpartition(".")
    node = OmegaConf.select(config, above, throw_on_missing=False) if above else config
    schema = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
    hints = get_type_hints(schema) if is_dataclass(schema) else {}
    if name not in hints:
        raise UnknownKeyError(key)
    return hints[name]


def read_value(kind: Any, text: str) -> Any:
    """The value of an annotation such as `int`, `str | None` or `list[str]`.

    Raises:
        ValueError: it is none; the message follows "key=text".
    """
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if NoneType in kinds and text.strip() in NOTHING:
        return None
    first = next(one for one in kinds if one is not NoneType)
    if int in kinds and float in kinds:
        return _number(text)
    if first is bool:
        if text.strip().lower() not in SWITCHES:
            raise ValueError(" must be true or false.")
        return SWITCHES[text.strip().lower()]
    if first is int:
        return _whole(text, optional=NoneType in kinds)
    if first is float:
        return _decimal(text, optional=NoneType in kinds)
    if first is str:
        if text in NOTHING:
            raise ValueError(" is nothing, and there is no run without it; give a value.")
        return _string(text)
    if get_origin(first) is list:
        return [read_value(get_args(first)[0], part) for part in entries(text)]
    if get_origin(first) is dict:
        return {name: read_value(get_args(first)[1], part) for name, part in items(text)}
    return read_any(text)


def read_any(text: str) -> Any:
    """A value of any kind: a list, a dictionary, true or false, null, a number, and else the text itself."""
    stripped = text.strip()
    if stripped in NOTHING:
        return None
    if stripped.lower() in ("true", "false"):
        return stripped.lower() == "true"
    if bracketed(stripped, "["):
        return [read_any(part) for part in entries(stripped)]
    if bracketed(stripped, "{"):
        return {name: read_any(part) for name, part in items(stripped)}
    try:
        return _number(stripped)
    except ValueError:
        return _string(text)


def _whole(text: str, optional: bool) -> int:
    try:
        value = _number(text)
    except ValueError:
        value = 0.5
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int):
        raise ValueError(f" must be a whole number{' or null' * optional}, for example 4, 1000 or 1e4.")
    if abs(value) >= LARGEST:
        raise ValueError(f" is too large; the largest whole number is {LARGEST - 1}.")
    return value


def _decimal(text: str, optional: bool) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f" must be a number{' or null' * optional}, for example 0.5 or 1e-4.") from None


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise ValueError(" must be a number, for example 10 or 0.5.") from None


def _string(text: str) -> str:
    text = unquoted(text)
    return os.path.expanduser(text) if text == "~" or text.startswith("~/") else text


def check_finite(settings: Any, prefix: str = "") -> None:
    """Raise UserError when a number of a dataclass of settings, or of one inside of it, is infinite or none at all."""
    for field in fields(settings):
        value, name = getattr(settings, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            check_finite(value, f"{name}.")
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, float) and not math.isfinite(part):
                raise UserError(f"{name}={value} must be finite; give a number, for example 0.5 or 1e-4.")


def _with_references(config: DictConfig, value: Any) -> Any:
    """The value, whose strings keep ${key} of the settings that there are; every other ${ is text."""
    if isinstance(value, list):
        return [_with_references(config, part) for part in value]
    if isinstance(value, dict):
        return {name: _with_references(config, part) for name, part in value.items()}
    if not isinstance(value, str) or "${" not in value:
        return value
    names = _REFERENCE.findall(value)
    known = len(names) == value.count("${") and all(OmegaConf.select(config, name) is not None for name in names)
    return value if known else literal(value)


def literal(value: Any) -> Any:
    r"""The value as OmegaConf must have it to give it back unchanged: with \${ for every ${ of its strings."""
    if isinstance(value, list):
        return [literal(part) for part in value]
    if isinstance(value, dict):
        return {name: literal(part) for name, part in value.items()}
    return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", value) if isinstance(value, str) else value
