"""Names of settings and choices for completion, from a file: those who complete must not wait for torch.

`python -m policy_accel.commands.known_settings` writes the file anew.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

FILE = Path(__file__).with_name("known_settings.json")


def known_settings() -> dict[str, Any]:
    """By track: "groups", the choices of each group, and "settings", the values of each setting where they are few."""
    found = json.loads(FILE.read_text())
    assert isinstance(found, dict)
    return found


def all_known(settings: Sequence[str]) -> bool:
    """Whether each is KEY=VALUE with a key, or a choice, that ships; values are not looked at otherwise."""
    from policy_accel.configuration import SOURCES  # which imports Hydra
    from policy_accel.user_files import SUFFIXES

    known = known_settings().values()
    keys = {key for one in known for key in one["settings"]}
    sections = tuple(f"{section}." for source in SOURCES.values() for section in source.open_sections)
    for key, equals, value in (setting.partition("=") for setting in settings):
        choices = {name for one in known for name in one["groups"].get(key, ())}
        chosen = value in choices or (choices and value.endswith(SUFFIXES))
        section = any(one.startswith(f"{key}.") for one in keys)
        if not equals or not (chosen or key in keys or (section and not choices) or key.startswith(sections)):
            return False
    return True


def collected() -> dict[str, Any]:
    """The same from the dataclasses and the shipped YAML files; imports torch."""
    from policy_accel.configuration import SOURCES
    from policy_accel.groups import groups_of
    from policy_accel.track import track

    found = {}
    for name in SOURCES:
        groups = track(name).choices()
        settings = _settings(track(name).schema)
        for group in groups_of(name):
            for choice in group.choices.values():
                settings |= _settings(choice, f"{group.path}.")
        settings = {key: values for key, values in sorted(settings.items()) if key.rpartition(".")[2] != "name"}
        found[name] = {"groups": groups, "settings": {key: settings[key] for key in settings if key not in groups}}
    return found


def _settings(schema: Any, prefix: str = "") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    hints = get_type_hints(schema)
    for field in dataclasses.fields(schema):
        kind = hints[field.name]
        inner = next((one for one in (kind, *get_args(kind)) if dataclasses.is_dataclass(one)), None)
        if inner is not None:
            found |= _settings(inner, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = ["true", "false"] if kind is bool else []
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps(collected(), indent=1) + "\n")
