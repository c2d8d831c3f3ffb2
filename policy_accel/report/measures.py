"""Curves of the measures of image runs, such as FID, beside what held-out real images reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from policy_accel.parsing import is_number
from policy_accel.report.charts import Chart, Row, Table, rounded, shown, trace
from policy_accel.report.curves import Points, curve_chart
from policy_accel.report.runs import ReportedRun, as_number


def measure_names(runs: Sequence[ReportedRun]) -> list[str]:
    """The measures that any run logged, in the order in which they come."""
    return list(dict.fromkeys(name for run in runs for row in run.rows for name in _measures(row)))


def measure_chart(runs: Sequence[ReportedRun], name: str) -> Chart | None:
    """A measure over updates, with its floor: the same measure of held-out images. None when no run has it twice."""
    if not any(len(_points(run, name)) > 1 for run in runs):
        return None
    found = [found for run in runs for row in run.rows if (found := _measures(row).get(name))]
    floors = [float(measure["floor"]) for measure in found if is_number(measure.get("floor"))]
    better = next((str(measure["better"]) for measure in found if measure.get("better") in ("lower", "higher")), "")
    steps = [float(row["step"]) for run in runs for row in run.rows if name in _measures(row)]
    extra = []
    if floors:
        floor = sorted(floors)[len(floors) // 2]
        label = "held-out real images (median)"
        ends = rounded([min(steps), max(steps)])
        extra.append(trace("floor", None, None, x=ends, y=rounded([floor, floor]), mode="lines", name=label))
    values = [value for run in runs for _, value in _points(run, name)]
    log = bool(values) and min(values) > 0 and max(values) > 20 * min(values)
    return curve_chart(
        runs,
        f"measure-{name}",
        name,
        lambda run: _points(run, name),
        axis=name,
        better=better,
        log=log,
        extra=extra,
        note="Dashed: held-out real images." if floors else "",
    )


def measures_table(runs: Sequence[ReportedRun]) -> Table:
    """The measures of the latest score of each run, with their floor in brackets."""
    latest = {id(run): _measures(run.evaluation) for run in runs}
    names = list(dict.fromkeys(name for measures in latest.values() for name in measures))
    rows = [
        Row([run.arm, run.seed, *(_cell(latest[id(run)].get(name, {})) for name in names)], run.arm, run.seed)
        for run in runs
        if latest[id(run)]
    ]
    return Table(["arm", "training seed", *names], rows)


def _cell(measure: dict[str, Any]) -> str:
    value, floor = as_number(measure.get("value")), as_number(measure.get("floor"))
    return shown(value) if floor is None else f"{shown(value)} ({shown(floor)})"


def _points(run: ReportedRun, name: str) -> Points:
    found = {
        float(row["step"]): float(measure["value"])
        for row in run.rows
        if is_number(row.get("step")) and is_number((measure := _measures(row).get(name, {})).get("value"))
    }
    return sorted(found.items())


def _measures(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    measures = row.get("measures")
    if not isinstance(measures, dict):
        return {}
    return {str(name): measure for name, measure in measures.items() if isinstance(measure, dict)}
