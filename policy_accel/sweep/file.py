"""The YAML file that a sweep, or a time-to-score plan, is written in. It needs no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policy_accel.errors import UserError
from policy_accel.parsing import from_yaml
from policy_accel.quoting import quoted
from policy_accel.user_files import SUFFIXES

OWN = ("sweep_dir", "launcher")


def is_own(argument: str) -> bool:
    """Whether a setting, "launcher.cpus=4", is of the sweep and not of its runs."""
    return argument.partition("=")[0].partition(".")[0] in OWN


def file_of(arguments: Sequence[str]) -> Path | None:
    """The file before the settings of `policy-accel sweep`, if there is one."""
    named = arguments and "=" not in arguments[0] and arguments[0].endswith(SUFFIXES)
    return Path(arguments[0]) if named else None


def read_file(path: Path) -> list[str]:
    """The settings of a YAML file: a line `key: value` is what `key=value` is on the command line.

    Raises:
        UserError: no such file, or it holds no settings.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file.")
    try:
        values = from_yaml(path.read_bytes())
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not a readable YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no settings; write key: value, for example `seed: 1,2,3`.")
    return [f"{key}={value if isinstance(value, str) else as_text(value)}" for key, value in values.items()]


def as_text(value: Any) -> str:
    """A value of YAML as an override has it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{as_text(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_text, value)) + "]"
    if isinstance(value, str):
        return quoted(value)
    return json.dumps(value)
