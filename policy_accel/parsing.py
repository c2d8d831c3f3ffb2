"""Where bytes that somebody else wrote become values: the one reader of JSON and YAML.

Whatever is wrong with them is a ValueError, whose message says what: not UTF-8, no JSON, nested so deeply that the
parser gives up, or so many values (YAML may repeat what it named) that going through them would take for ever.
"""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from policy_accel.errors import UserError
from policy_accel.files import explained

DEEPEST = 200
MOST_VALUES = 1_000_000


def from_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def from_yaml(text: str | bytes) -> Any:
    """The value of a YAML text, plain types alone.

    Raises:
        ValueError: it is none.
    """
    content = text.encode() if isinstance(text, str) else text
    steps = (1 if mark in b"[{" else -1 for mark in re.findall(rb"[\[{\]}]", content))
    if max(accumulate(steps, initial=0)) > DEEPEST:
        raise ValueError("nested too deeply")  # for which the parser takes a time that grows with the square
    try:
        value = yaml.safe_load(text)
        _count(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    return value


def _count(value: Any, counted: int = 0) -> int:
    """How many values there are, what YAML names twice as often as it is meant."""
    counted += 1
    if counted > MOST_VALUES:
        raise ValueError(f"it holds more than {MOST_VALUES:,} values")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        counted = _count(part, counted)
    return counted


def read_record(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a file of JSON or, by its suffix, YAML.

    Args:
        path: of the file.
        remedy: what the user can do when it is damaged, as "choose another run_dir".

    Raises:
        UserError: the file cannot be read, or holds no object.
    """
    with explained(path, "read"):
        content = path.read_bytes()
    try:
        value = from_yaml(content) if path.suffix in (".yaml", ".yml") else from_json(content)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({_first_line(error)}); {remedy}.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged (it holds no record but {type(value).__name__}); {remedy}.")
    return {str(key): part for key, part in value.items()}


def _first_line(error: ValueError) -> str:
    lines = str(error).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def is_number(value: Any) -> bool:
    """Whether a value of somebody's JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
