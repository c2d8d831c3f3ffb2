"""What a chart of the page is: Plotly traces without colours, which the page gives, and the same numbers as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

BAR_TEXT = {"textposition": "inside", "insidetextanchor": "start", "constraintext": "none", "textangle": 0}
"""What is written on a bar begins with it, in a size that can be read, and may be longer than it."""


@dataclass(frozen=True)
class Row:
    """A row of a table; the filters of the page hide it with its arm and its training seed, where it has them."""

    cells: Sequence[str]
    arm: str | None = None
    seed: str | None = None


@dataclass(frozen=True)
class Table:
    """Text in columns; the first column heads its row."""

    header: Sequence[str]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Chart:
    """One figure.

    Attributes:
        name: its id on the page.
        title: its heading.
        caption: what is drawn, and of how many seeds.
        summary: a sentence with the numbers, for those who do not see it.
        traces: of Plotly. `meta` has the "arm", the training "seed" (None for one over all seeds) and the "role":
            seed, mean, band, point, bar, interval or floor, by which the page colours it.
        layout: of Plotly.
        table: the numbers.
        follows: what the page makes anew when training seeds are chosen: "curves" (means and bands over updates), "row"
            (means of the dots on a row) or nothing.
        height: px.
    """

    name: str
    title: str
    caption: str
    summary: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    table: Table
    follows: str = ""
    height: int = 320


def trace(role: str, arm: str | None, seed: str | None, **given: Any) -> dict[str, Any]:
    """A Plotly trace with what the page must know about it."""
    return {"type": "scatter", "meta": {"role": role, "arm": arm, "seed": seed}, **given}


def rounded(values: Iterable[float | None], digits: int = 6) -> list[float | None]:
    """Values with `digits` significant digits; None in place of what is no finite number."""
    return [None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}") for value in values]


def shown(value: float | None, digits: int = 3) -> str:
    """A number as a person reads it: 0.774, 1,000, 3.9e-09; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.{digits}g}"
    return f"{value:.{digits}f}" if abs(value) >= 0.1 else f"{value:.{digits}g}"


def span(low: float | None, high: float | None) -> str:
    """An interval as a person reads it."""
    return f"{shown(low)} to {shown(high)}"


def log_axis(title: str, values: Iterable[float]) -> dict[str, Any]:
    """A logarithmic axis with marks at round numbers, of which at least three lie among the values where they can."""
    positive = [value for value in values if value > 0]
    if not positive:
        return {"title": title}
    low, high = min(positive), max(positive)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks: list[float] = []
    for parts in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        marks = [float(f"{part}e{power}") for power in powers for part in parts]
        if sum(low <= mark <= high for mark in marks) >= 3:
            break
    return {"title": title, "type": "log", "tickvals": marks, "ticktext": [f"{mark:g}" for mark in marks]}
