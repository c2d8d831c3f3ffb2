"""A comparison as a table: for a terminal, and as CSV."""

from __future__ import annotations

import csv
import io

from policy_accel.comparison.result import Arm, Comparison, Difference, Interval

HEADER = ("arm", "seeds", "episodes", "mean", "interval", "difference", "interval", "p", "p (Holm)", "detectable")
EPISODES = HEADER.index("episodes")
COLUMNS = (
    *("arm", "training_seeds", "episodes", "mean", "low", "high"),
    *("difference", "difference_low", "difference_high", "p", "p_holm", "detectable", "found"),
)


def text_table(comparison: Comparison) -> list[str]:
    """Lines of a table with aligned columns; the baseline first."""
    episodes = f" over {len(comparison.evaluation_seeds)} episodes" if comparison.evaluation_seeds else ""
    title = (
        f"{comparison.measured()} of {comparison.of_task()}{episodes}; "
        f"intervals of {100 * comparison.confidence:g} %; differences from {comparison.baseline}"
    )
    rows = [HEADER, *(_row(comparison, arm, difference) for arm, difference in _pairs(comparison))]
    if comparison.track == "images":
        rows = [(*row[:EPISODES], *row[EPISODES + 1 :]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return [title, *lines]


def csv_table(comparison: Comparison) -> str:
    """The same table with all digits; empty cells for what is not known, and for the baseline's differences."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for arm, difference in _pairs(comparison):
        seeds = " ".join(map(str, arm.runs))
        cells = [arm.name, seeds, len(comparison.evaluation_seeds), arm.mean, *(arm.interval or ("", ""))]
        if difference is None:
            writer.writerow(cells + 7 * [""])
            continue
        known = [difference.p, difference.corrected, difference.detectable]
        writer.writerow(
            [
                *cells,
                difference.value,
                *(difference.interval or ("", "")),
                *("" if value is None else value for value in known),
                difference.found,
            ]
        )
    return text.getvalue()


def _pairs(comparison: Comparison) -> list[tuple[Arm, Difference | None]]:
    differences = {difference.arm: difference for difference in comparison.differences}
    return [(arm, differences.get(arm.name)) for arm in comparison.arms]


def _row(comparison: Comparison, arm: Arm, difference: Difference | None) -> tuple[str, ...]:
    seeds = ",".join(map(str, arm.runs))
    episodes = str(len(comparison.evaluation_seeds) or "-")
    first = (arm.name, seeds, episodes, f"{arm.mean:.3f}", _interval(arm.interval))
    if difference is None:
        return (*first, *5 * ("",))
    return (
        *first,
        f"{difference.value:+.3f}",
        _interval(difference.interval, "+"),
        _p(difference.p),
        _p(difference.corrected),
        "-" if difference.detectable is None else f"{difference.detectable:.3f}",
    )


def _interval(interval: Interval | None, sign: str = "") -> str:
    return "-" if interval is None else f"[{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]"


def _p(value: float | None) -> str:
    return "-" if value is None else "<.001" if value < 0.001 else f"{value:.3f}"
