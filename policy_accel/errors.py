"""The one exception that a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right: one sentence with the file or field, its value and the remedy.

    The command line prints the sentence and exits with status 2, without a traceback.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Name the closest of the known names, or list them all when none is close."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known are: {', '.join(names)}."
