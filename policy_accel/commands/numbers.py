"""Types of arguments that are numbers, each with its range. It imports nothing heavy."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

LARGEST = 2**63 - 1
"""As whole numbers of settings have it: those of tensors do."""


def whole(least: int, most: int = LARGEST) -> Callable[[str], int]:
    """The type of a whole number from `least` to `most`."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is no whole number") from None
        if value > LARGEST:
            raise argparse.ArgumentTypeError(f"{text} must be at most {LARGEST}")
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} must be at least {least}")
        if value > most:
            raise argparse.ArgumentTypeError(f"{text} must lie between {least} and {most}")
        return value

    return read


def number(
    must: str, holds: Callable[[float], bool] = lambda value: True, *, infinite: bool = False
) -> Callable[[str], float]:
    """The type of a number for which `holds`, as `must` says: "be above 0". Infinity is one if `infinite`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is no number") from None
        known = math.isfinite(value) or (infinite and value == math.inf)
        if not known or not holds(value):
            raise argparse.ArgumentTypeError(f"{text} must {must if known else 'be finite'}")
        return value

    return read


AT_LEAST_0, AT_LEAST_1 = whole(0), whole(1)
IMAGES, IMAGES_OR_NONE = whole(1, 10**8), whole(0, 10**8)
"""Images to draw: more do not fit into any memory."""
WORKERS = whole(-1)
"""Processes: -1 is one for each core."""
NUMBER = number("be finite")
UPPER_BOUND = number("be a number or inf", infinite=True)
POSITIVE = number("be above 0", lambda value: value > 0)
NOT_NEGATIVE = number("be at least 0", lambda value: value >= 0)
SHARE = number("be above 0 and at most 1", lambda value: 0 < value <= 1)
CONFIDENCE = number("lie between 0 and 1, for example 0.95", lambda value: 0 < value < 1)
