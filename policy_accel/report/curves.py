"""Learning curves: each run a line, and over the training seeds of an arm their mean and their range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from policy_accel.report.charts import Chart, Row, Table, log_axis, rounded, shown, span, trace
from policy_accel.report.runs import ReportedRun, arms_of, of_arm

MOST_POINTS = 200
TABLE_STEPS = 6

Points = list[tuple[float, float]]


def thinned(points: Points, most: int = MOST_POINTS, *, mean: bool = False) -> Points:
    """At most `most` of the points (update, value), the first and the last among them.

    With `mean`, the points between are means of neighbouring ones, as the rows of a loss are means themselves.
    """
    if len(points) <= most:
        return points
    if not mean:
        return [points[i] for i in np.unique(np.linspace(0, len(points) - 1, most).round().astype(int))]
    parts = np.array_split(np.array(points[1:-1]), most - 2)
    return [points[0], *((float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts), points[-1]]


def band(curves: Sequence[Points]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean and range of several curves where all of them are: updates, means, smallest and largest values, each [N].

    A curve is taken to be straight between its points. N is nought when no update is common to all.
    """
    first, last = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
    steps = np.unique([step for curve in curves for step, _ in curve if first <= step <= last])
    values = np.array([np.interp(steps, *np.array(curve).T) for curve in curves])
    return steps, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def curve_chart(
    runs: Sequence[ReportedRun],
    name: str,
    title: str,
    points_of: Callable[[ReportedRun], Points],
    *,
    axis: str,
    mean: bool = False,
    log: bool = False,
    better: str = "",
    over: str = "updates",
    extra: Sequence[dict[str, Any]] = (),
    note: str = "",
) -> Chart | None:
    """A chart of what `points_of` gives of each run, over updates or something else; None when no run has any.

    Args:
        runs: of all arms.
        name, title: of the chart.
        points_of: (update, value), ascending in the first.
        axis: what the values are.
        mean: see `thinned`.
        log: whether values are on a logarithmic scale.
        better: "higher" or "lower", for the caption.
        over: what the values are over.
        extra: more traces.
        note: more for the caption.
    """
    traces: list[dict[str, Any]] = []
    bands: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = {}
    for arm in arms_of(runs):
        own = [(run, points) for run in of_arm(runs, arm) if (points := thinned(points_of(run), mean=mean))]
        if not own:
            continue
        bands[arm] = steps, means, low, high = band([points for _, points in own])
        several = len(own) > 1
        # Always there, empty for one seed, so that the page finds the place of what it makes anew.
        edge = (
            {"x": rounded([*steps, *steps[::-1]]), "y": rounded([*high, *low[::-1]])} if several else {"x": [], "y": []}
        )
        traces.append(trace("band", arm, None, **edge, mode="lines", fill="toself", hoverinfo="skip"))
        for run, points in own:
            x, y = ([point[place] for point in points] for place in (0, 1))
            label = f"{arm}, seed {run.seed}"
            few = "lines+markers" if len(points) < 30 else "lines"
            traces.append(trace("seed", arm, run.seed, x=rounded(x), y=rounded(y), mode=few, name=label))
        traces.append(trace("mean", arm, None, x=rounded(steps), y=rounded(means), mode="lines", name=f"{arm}, mean"))
    if not traces:
        return None
    values = [value for part in traces if part["meta"]["role"] == "seed" for value in part["y"]]
    vertical = log_axis(axis, values) if log else {"title": axis}
    ends = "; ".join(f"{arm} {shown(_last(means))}" for arm, (_, means, _, _) in bands.items() if len(means))
    seeds = sorted({len({t["meta"]["seed"] for t in traces if t["meta"]["arm"] == arm} - {None}) for arm in bands})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    one = seeds == [1]
    seeds_said = "" if one else f"{count} training seeds an arm."
    drawn = "One run of each arm." if one else "Thin: runs. Thick: their mean. Band: their range."
    return Chart(
        name,
        title,
        " ".join(
            part for part in (drawn, seeds_said, f"{better.capitalize()} is better." * bool(better), note) if part
        ),
        f"{title} over {over}. At the end: {ends}.",
        [*traces, *extra],
        {"xaxis": {"title": over, **({"rangemode": "tozero"} if over == "updates" else {})}, "yaxis": vertical},
        _table(bands, over),
        follows="curves",
    )


def _last(values: np.ndarray) -> float | None:
    return float(values[-1]) if len(values) else None


def _table(bands: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]], over: str) -> Table:
    """Mean and range of each arm at some updates, or what else the values are over."""
    most = max((steps[-1] for steps, *_ in bands.values() if len(steps)), default=0.0)
    longest = max((steps for steps, *_ in bands.values()), key=lambda steps: (steps[-1:].sum() == most, len(steps)))
    chosen = (
        longest[np.unique(np.linspace(0, len(longest) - 1, TABLE_STEPS).round().astype(int))] if len(longest) else []
    )
    rows = []
    for arm, (steps, means, low, high) in bands.items():
        cells = [arm]
        for step in chosen:
            inside = len(steps) and steps[0] <= step <= steps[-1]
            mean, least, largest = (float(np.interp(step, steps, v)) if inside else None for v in (means, low, high))
            cells.append(shown(mean) + (f" ({span(least, largest)})" if inside and least != largest else ""))
        rows.append(Row(cells, arm))
    return Table(["arm", *(f"{shown(float(step))} {over}" for step in chosen)], rows)
