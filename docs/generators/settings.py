"""Every setting of both tracks, from the dataclasses that hold them."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from sphinx.pycode import ModuleAnalyzer

import policy_accel
from generators.markup import markdown
from policy_accel.groups import Group, groups_of
from policy_accel.track import HOMES, track
from policy_accel.training.config import RunConfig


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        key: as it is given, "training.steps".
        kind: its type.
        default: as a user would write it; None where it must be given.
        text: what it is.
        allowed: the values that it takes, where they are a few names.
    """

    key: str
    kind: str
    default: str | None
    text: str
    allowed: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Section:
    """Settings of one dataclass: a section of the configuration, or one of the choices of a group."""

    title: str
    text: str
    settings: list[Setting]


def settings_pages() -> dict[str, str]:
    """The pages: the settings that runs of every track have, and those of each track."""
    described: set[str] = set()
    shared = {field.name for field in dataclasses.fields(RunConfig)}
    pages = {"settings": _page(_restricted(sections("robot"), lambda top: top in shared), described)}
    for name in HOMES:
        pages[f"settings_{name}"] = _page(_restricted(sections(name), lambda top: top not in shared), described)
    return pages


def _restricted(found: list[Section], wanted: Callable[[str], bool]) -> list[Section]:
    """The sections, and the settings without a section, whose key begins with a wanted name."""
    first, *others = found
    alone = dataclasses.replace(first, settings=[one for one in first.settings if wanted(one.key)])
    return [alone, *(one for one in others if wanted(re.split(r"[./=]", one.title)[0]))]


def sections(track_name: str) -> list[Section]:
    """All settings of a track, in the order of its configuration; those without a section come first."""
    home = track(track_name)
    home.register()
    groups = {group.path: group for group in groups_of(track_name)}
    return list(_walk(home.schema, "", groups))


def _walk(schema: type, prefix: str, groups: dict[str, Group]) -> Iterator[Section]:
    hints = typing.get_type_hints(schema)
    names = [field.name for field in dataclasses.fields(schema)]
    inner = [name for name in names if dataclasses.is_dataclass(hints[name])]
    own = [_setting(schema, name, hints[name], prefix) for name in names if name not in inner]
    if prefix.removesuffix(".") not in groups:
        yield Section(prefix.removesuffix("."), inspect.getdoc(schema) or "", own)
    for name in inner:
        key = f"{prefix}{name}"
        if key in groups:
            yield from _choices(groups[key], groups)
        else:
            yield from _walk(hints[name], f"{key}.", groups)


def _choices(group: Group, groups: dict[str, Group]) -> Iterator[Section]:
    """A section for each choice of a group, with the settings that it has, and then for the groups inside of it."""
    for name, schema in group.choices.items():
        hints = typing.get_type_hints(schema)
        fields = [field.name for field in dataclasses.fields(schema)]
        own = [one for one in fields if one != "name" and not dataclasses.is_dataclass(hints[one])]
        settings = [_setting(schema, one, hints[one], f"{group.path}.") for one in own]
        yield Section(f"{group.name}={name}", inspect.getdoc(schema) or "", settings)
    for field, hint in typing.get_type_hints(group.base).items():
        key = f"{group.path}.{field}"
        if key in groups:
            yield from _choices(groups[key], groups)
        elif dataclasses.is_dataclass(hint):
            yield from _walk(typing.cast(type, hint), f"{key}.", groups)


def _setting(schema: type, name: str, hint: Any, prefix: str) -> Setting:
    field = next(field for field in dataclasses.fields(schema) if field.name == name)
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    missing = value is dataclasses.MISSING or value == "???"
    key = prefix + name
    found = allowed_values().get((schema.__module__, key)) or allowed_values().get(("", key), ())
    return Setting(key, _kind(hint), None if missing else _written(value), attribute_text(schema, name), found)


def _kind(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(map(_kind, typing.get_args(hint)))
    if hint is types.NoneType:
        return "null"
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def _written(value: Any) -> str:
    return value or '""' if isinstance(value, str) else json.dumps(value)


def attribute_text(schema: type, name: str) -> str:
    """The string below a field, of the class or the nearest one that it is derived from."""
    for base in inspect.getmro(schema)[:-1]:
        lines = ModuleAnalyzer.for_module(base.__module__).find_attr_docs().get((base.__qualname__, name))
        if lines:
            return " ".join(lines).strip()
    return ""


@cache
def allowed_values() -> dict[tuple[str, str], tuple[str, ...]]:
    """(module, key) -> the values that the check of the setting takes, read from its `one_of("key", value, NAMES)`.

    The module is "" for a key that is checked elsewhere than where it is defined, outside of `model`, whose keys mean
    something else for each network.
    """
    found = {}
    root = Path(policy_accel.__path__[0])
    for path in sorted(root.rglob("*.py")):
        text = path.read_text()
        for call in ast.walk(ast.parse(text)) if "one_of(" in text else ():
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "one_of":
                key, _, names = call.args
                if isinstance(key, ast.Constant) and re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", key.value):
                    module = ".".join(["policy_accel", *path.relative_to(root).with_suffix("").parts])
                    with suppress(NameError):  # names that a function is given are those of no setting
                        values = eval(ast.unparse(names), vars(importlib.import_module(module)))
                        found[module if key.value.startswith("model.") else "", key.value] = tuple(map(str, values))
    return found


def _page(found: list[Section], described: set[str]) -> str:
    return "\n\n".join(_section(section, described) for section in found if section.settings or "=" in section.title)


def _section(section: Section, described: set[str]) -> str:
    text = markdown(section.text.split("\n\n")[0])
    heading = [f"## {section.title}", text] if section.title else []
    return "\n\n".join([*heading, *(_entry(one, described) for one in section.settings)])


def _entry(setting: Setting, described: set[str]) -> str:
    """The directive for it; a key that several choices have is in the index once."""
    again, allowed = setting.key in described, ", ".join(f"`{value}`" for value in setting.allowed)
    described.add(setting.key)
    return "\n".join(
        [
            f"```{{confval}} {setting.key}",
            f":type: `{setting.kind}`",
            f":default: `{setting.default}`" if setting.default is not None else ":default: must be given",
            *([":no-index:"] if again else []),
            "",
            markdown(setting.text),
            *(["", f"One of {allowed}."] if allowed else []),
            "```",
        ]
    )
