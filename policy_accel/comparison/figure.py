"""A comparison as a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from policy_accel.comparison.result import MADE_BY, Comparison, Interval
from policy_accel.files import replacing

FOUND, OPEN = "#1f5fa8", "#8a8a8a"
ABOVE = 0.22
"""Rows that the dots of the runs lie above their mean."""


def draw(comparison: Comparison, path: Path) -> None:
    """Write `figure_of` to a PNG, in place of what is there.

    Raises:
        UserError: the file cannot be written.
    """
    figure = figure_of(comparison)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png", metadata={"Software": MADE_BY})


def figure_of(comparison: Comparison) -> Figure:
    """Means with their runs on the left, differences from the baseline on the right, each with its interval."""

    arms, places = comparison.arms, range(len(comparison.arms))
    figure = Figure(figsize=(11.0, 1.8 + 0.42 * len(arms)), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, arm in zip(places, arms, strict=True):
        left.plot(list(arm.runs.values()), [place - ABOVE] * len(arm.runs), "o", color=FOUND, alpha=0.7, markersize=4)
        inside = "white" if len(arm.runs) == 1 else "black"
        left.errorbar(
            arm.mean, place, xerr=_beside(arm.mean, arm.interval), fmt="D", color="black", mfc=inside, capsize=4
        )
    right.axvline(0.0, color="black", linewidth=0.8)
    for place, one in enumerate(comparison.differences, 1):
        colour = FOUND if one.found else OPEN
        right.errorbar(one.value, place, xerr=_beside(one.value, one.interval), fmt="D", color=colour, capsize=4)
    left.set_yticks(list(places), [_plain(arm.name) for arm in arms])
    left.set_ylim(len(arms) - 0.5, -0.5)
    left.set_xlabel(_plain(comparison.measured()))
    right.set_xlabel(_plain(f"difference from {comparison.baseline}"))
    alone = "; hollow: one training seed" if any(len(arm.runs) == 1 for arm in arms) else ""
    left.set_title(f"means; dots are runs{alone}", fontsize=10)
    right.set_title("differences; blue: found after Holm's correction", fontsize=10)
    for axis in (left, right):
        axis.grid(alpha=0.3, axis="x")
        axis.margins(x=0.08)
    episodes = f", {len(comparison.evaluation_seeds)} episodes" if comparison.evaluation_seeds else ""
    figure.suptitle(
        _plain(f"{comparison.of_task()}{episodes}; intervals of {100 * comparison.confidence:g} %"), fontsize=11
    )
    return figure


def _plain(text: str) -> str:
    """Text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


def _beside(value: float, interval: Interval | None) -> list[list[float]] | None:
    """How far the interval reaches to both sides; rounding may put a value just outside of it."""
    return None if interval is None else [[max(0.0, value - interval[0])], [max(0.0, interval[1] - value)]]
