"""Plain text of docstrings and help, with `code` in single backticks, as Markdown or reStructuredText."""

from __future__ import annotations

import re
from collections.abc import Callable


def markdown(text: str) -> str:
    """One paragraph in which only the backticks mean something."""
    return _outside_code(" ".join(text.split()), lambda part: re.sub(r"([\\*_\[\]<>$|#{}~^])", r"\\\1", part))


def restructured(line: str) -> str:
    """A line of a docstring, whose stars, bars and trailing underscores are characters."""
    line = _outside_code(line, lambda part: re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part))
    return re.sub(r"`s\b", r"`\\ s", line)


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    parts = re.split(r"(`+[^`]+`+)", text)
    return "".join(part if number % 2 else change(part) for number, part in enumerate(parts))
