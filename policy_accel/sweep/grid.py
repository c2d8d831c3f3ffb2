"""From settings with several values to runs: the product of the choices, and a name for each run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, RangeSweep, Transformer
from hydra.errors import HydraException

from policy_accel.errors import UserError, did_you_mean
from policy_accel.quoting import split, unquoted
from policy_accel.typed_values import read_any
from policy_accel.user_files import GROUPS, SUFFIXES

FUNCTION = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag)\(")
ChoicesOf = Callable[[str], Sequence[str]]
"""What a group of the configuration offers; nothing for a key that is no group."""


@dataclass(frozen=True)
class Setting:
    """One key and what it takes in turn.

    Attributes:
        key: of the configuration.
        values: as they stand behind `key=`.
        varies: whether several were asked for, though it be one that is left.
    """

    key: str
    values: tuple[str, ...]
    varies: bool


def read_settings(overrides: Sequence[str], choices_of: ChoicesOf) -> list[Setting]:
    """The settings of overrides in Hydra's grammar: `key=a,b`, `choice(a,b)`, `range(1,4)`, `glob(immiscible*)`.

    A quoted value, a list `[a,b]` and a dictionary `{a: 1}` are one value each.

    Raises:
        UserError: a value that cannot be read, a key that is given twice, a glob that matches nothing.
    """
    settings = [_read(override, choices_of) for override in overrides]
    keys = [setting.key for setting in settings]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"{key} is given {keys.count(key)} times; give all of its values at once: {key}=a,b.")
    return settings


def _read(override: str, choices_of: ChoicesOf) -> Setting:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"'{override}' is not of the form key=value or key=a,b, for example seed=1,2,3.")
    if override[0] in "+~":
        raise UserError(f"'{override}': keys cannot be added or removed; write key=value with a key that exists.")
    if not FUNCTION.match(value):
        values = _between_commas(key, value, names=bool(choices_of(key)) or key in GROUPS)
        return Setting(key, values, varies=len(values) > 1)
    try:
        (parsed,) = OverridesParser.create().parse_overrides([override])
        return Setting(key, _values(key, parsed, choices_of), varies=True)
    except HydraException as error:
        raise UserError(_unreadable(key, value)) from error


def _between_commas(key: str, text: str, *, names: bool) -> tuple[str, ...]:
    """The values of "a,b", as `train` takes each; `names` of choices lose their quotes."""
    if "," not in text:
        return (text,)
    try:
        parts = split(text)
    except ValueError:
        parts = [""]
    if "" in parts:
        raise UserError(_unreadable(key, text))
    return tuple(unquoted(part) if names else _plain_number(part) for part in parts)


def _unreadable(key: str, text: str) -> str:
    return (
        f"{key}={text} cannot be read as values; write {key}=a,b with closed brackets, or quotes around a value that "
        f"has a comma: \"{key}='a,b'\"."
    )


def _plain_number(text: str) -> str:
    """0.001 for 1e-3, as directories of runs are named."""
    value = read_any(text)
    return str(value) if isinstance(value, int | float) else text


def _values(key: str, parsed: Override, choices_of: ChoicesOf) -> tuple[str, ...]:
    if parsed.is_interval_sweep():
        raise UserError(f"{parsed.input_line}: an interval has no number of values; give {key}=range(START,STOP,STEP).")
    known = choices_of(key)
    given: Any = parsed.value()
    if isinstance(given, Glob):
        if not known:
            raise UserError(f"{parsed.input_line}: glob() chooses from a group such as method, and {key} is none.")
        found = tuple(given.filter(list(known)))
        if not found:
            raise UserError(
                f"{parsed.input_line} matches nothing; {did_you_mean(re.sub(r'[*?]', '', given.include[0]), known)}"
            )
        return found
    as_text = _rounded if isinstance(given, RangeSweep) else _as_typed
    values = tuple(map(str, parsed.sweep_iterator(transformer=as_text)))
    if not values:
        raise UserError(f"{parsed.input_line} has no values; range(START,STOP) ends before STOP.")
    return values


def _as_typed(value: Any) -> str:
    """A value of choice(...) as it stands there, which Hydra would escape."""
    if isinstance(value, str):
        return value
    text: str = Transformer.str(value)
    return text


def _rounded(value: Any) -> str:
    """A number of a range of decimals, without the rounding errors of its sum."""
    return format(value, ".12g") if isinstance(value, float) else str(value)


def product(settings: Sequence[Setting], choices_of: ChoicesOf) -> dict[str, list[str]]:
    """The runs of a sweep: name -> overrides; the key that was given last varies fastest.

    The name is made of the keys that vary; a run that has no other beside it is called "run".

    Raises:
        UserError: two runs would have one name, and so one directory.
    """
    varying = [setting for setting in settings if setting.varies]
    labels = short_keys([setting.key for setting in varying])
    runs: dict[str, list[str]] = {}
    for values in itertools.product(*(setting.values for setting in settings)):
        chosen = {setting.key: value for setting, value in zip(settings, values, strict=True)}
        parts = [
            label("" if setting.key in GROUPS or choices_of(setting.key) else short, chosen[setting.key])
            for setting, short in zip(varying, labels, strict=True)
        ]
        name, overrides = "-".join(parts) or "run", [f"{key}={value}" for key, value in chosen.items()]
        if name in runs:
            pair = " and ".join(" ".join(run[i] for i in _places(settings)) for run in (runs[name], overrides))
            raise UserError(
                f"two runs would have the directory {name}: {pair}; drop one, or start a sweep of its own for it."
            )
        runs[name] = overrides
    return runs


def _places(settings: Sequence[Setting]) -> list[int]:
    return [place for place, setting in enumerate(settings) if setting.varies]


def short_keys(keys: Sequence[str]) -> list[str]:
    """The last part of each dotted key, and as many parts before it as tell it from the others."""
    found = []
    for key in keys:
        parts = re.split(r"[./]", key)
        others = [re.split(r"[./]", other) for other in keys if other != key]
        count = next(
            n for n in range(1, len(parts) + 1) if n == len(parts) or all(o[-n:] != parts[-n:] for o in others)
        )
        found.append(".".join(parts[-count:]))
    return found


def label(key: str, value: str) -> str:
    """A part of a directory's name: "kl" of a group, "seed1", "precision_bf16"."""
    text = Path(value).stem if value.endswith(SUFFIXES) else value
    shown = re.sub(r"[^\w.+-]+", "_", text).strip("_") or "empty"
    return shown if not key else f"{key}{shown}" if shown[0].isdigit() else f"{key}_{shown}"
