"""The one exception that a user is meant to read, and how errors of the libraries become it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any


class UserError(Exception):
    """Something the user can put right: one sentence with the file or field, its value and the remedy.

    The command line prints the sentence and exits with status 2, without a traceback.

    Attributes:
        told: whether another process of the run says it.
    """

    told = False


def close_to(name: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The closest of the known names, one that begins alike if there is any; None when none is close."""
    names = sorted(set(known))
    alike = [known_name for known_name in names if name and known_name.lower().startswith(name.lower())]
    close = difflib.get_close_matches(name, alike or names, n=1, cutoff=0.3 if alike else cutoff)
    return close[0] if close else None


def one_line(error: BaseException) -> str:
    """What an error of a library says, on one line, without its full stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Name the closest of the known names, or list all when none is close."""
    names = sorted(set(known))
    close = close_to(name, names)
    return f"did you mean '{close}'?" if close else f"known are: {', '.join(names)}."


@contextmanager
def naming(section: str, **settings: str) -> Iterator[None]:
    """Tell the user which setting is at fault when a function of the block raises ValueError.

    `diffusion/` and `acceleration/` begin each message with the argument at fault, "width=-1.0 must be positive." or
    "metric 'l3' is unknown."; the user reads the setting that it came from, "acceleration.timesteps.width=-1.0 must be
    positive." A message about data, "conditions: row 3 is not finite.", follows the name of the section and a colon.

    Args:
        section: dotted name of the settings that the block passes on.
        settings: for each argument whose setting has another name, that name; one with a dot is the whole key.

    Raises:
        UserError: in place of a ValueError of the block.
    """
    try:
        yield
    except ValueError as error:
        message = re.sub(r"^\w+(?= ')|\b\w+(?==)", lambda name: settings.get(name[0], name[0]), str(error))
        start = re.match(r"[\w.]+(?=(=| '))", message)
        separator = ": " if start is None else "."
        raise UserError(message if start and "." in start[0] else f"{section}{separator}{message}") from error


@contextmanager
def refusing(source: object) -> Iterator[None]:
    """Turn a ValueError of the block, which is one sentence, into a UserError that names the source."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error


def check_choice(argument: str, value: str, known: Iterable[str]) -> str:
    """Return `value` when it is one of the known ones.

    Raises:
        ValueError: it is not; the message names the nearest.
    """
    choices = tuple(known)
    if value not in choices:
        raise ValueError(f"{argument} '{value}' is unknown; {did_you_mean(value, choices)}")
    return value


def one_of(name: str, value: str, known: Iterable[str]) -> str:
    """`check_choice` for the setting `name`, which raises UserError."""
    try:
        return check_choice(name, value, known)
    except ValueError as error:
        raise UserError(str(error)) from None


def typed_as(value: Any) -> str:
    """A setting's value as a user types it: null, true and false where Python has other words."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def refuse_idle(config: Any, prefix: str, used: set[str], because: str) -> None:
    """Raise UserError when a field of the dataclass `config` that is not `used` differs from its default: it would do
    nothing.

    Args:
        config: settings.
        prefix: dotted name of the settings.
        used: fields that have an effect.
        because: what leaves the others without one.
    """
    plain = type(config)()
    for field in fields(config):
        value, default = getattr(config, field.name), getattr(plain, field.name)
        if field.name not in used and value != default:
            if is_dataclass(value) and type(value) is type(default):
                refuse_idle(value, f"{prefix}.{field.name}", set(), because)
            key = f"{prefix}.{field.name}"
            raise UserError(f"{key}={typed_as(value)} has no effect with {because}; leave it at {typed_as(default)}.")
