"""Text with quotes, brackets and commas, taken apart: [a, 'b,c'] and {name: value}."""

from __future__ import annotations

import re

QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
PAIRS = {"[": "]", "{": "}", "(": ")"}
ITEM = re.compile(rf"({QUOTED.pattern}|[^:]*?)\s*:(.*)", re.DOTALL)


def unquoted(text: str) -> str:
    """The text without the one pair of quotes that is all around it, if there is one."""
    stripped = text.strip()
    if not QUOTED.fullmatch(stripped):
        return text
    return re.sub(rf"\\([\\{stripped[0]}])", r"\1", stripped[1:-1])


def quoted(text: str) -> str:
    """The text in quotes, for `unquoted`."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def split(text: str) -> list[str]:
    """The parts between commas, without the blanks around them; a comma inside of brackets or of a part in quotes does
    not count.

    Raises:
        ValueError: a bracket that is not closed or not opened; the message follows "key=text".
    """
    parts, closers, start, place = list[str](), list[str](), 0, 0
    while place < len(text):
        character = text[place]
        opens = text[:place].rstrip()[-1:] in (*PAIRS, ":", ",", "")  # elsewhere it is an apostrophe
        if opens and (string := QUOTED.match(text, place)):
            place = string.end()
            continue
        if character in PAIRS:
            closers.append(PAIRS[character])
        elif character in PAIRS.values():
            if not closers or closers.pop() != character:
                raise ValueError(f" has a '{character}' that closes nothing; put quotes around a name that has one.")
        elif character == "," and not closers:
            parts.append(text[start:place].strip())
            start = place + 1
        place += 1
    if closers:
        raise ValueError(f" lacks a '{closers[-1]}'; put quotes around a name that has a bracket.")
    return [*parts, text[start:].strip()]


def entries(text: str) -> list[str]:
    """What stands between the commas of [a, b]; the brackets may be left out."""
    stripped = text.strip()
    parts = split(stripped[1:-1] if bracketed(stripped, "[") else stripped)
    if parts[-1] == "":  # of nothing at all, or behind a last comma
        parts.pop()
    if "" in parts:
        raise ValueError(" has an entry that is empty; drop one comma.")
    return parts


def items(text: str) -> list[tuple[str, str]]:
    """Names and values of {a: 1, b: 2}."""
    stripped = text.strip()
    if not bracketed(stripped, "{"):
        raise ValueError(" holds settings; write them as {name: value}, or one by one.")
    items = []
    for part in filter(None, split(stripped[1:-1])):
        item = ITEM.fullmatch(part)
        if item is None:
            raise ValueError(f" has '{part}' without a colon; write {{name: value}}.")
        items.append((unquoted(item[1]), item[2].strip()))
    return items


def bracketed(text: str, opener: str) -> bool:
    """Whether one pair of brackets is around all of it."""
    if not (text.startswith(opener) and text.endswith(PAIRS[opener]) and len(text) > 1):
        return False
    try:
        split(text[1:-1])
    except ValueError:
        return False
    return True
