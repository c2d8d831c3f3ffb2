"""Costs to a score as `policy-accel benchmark time-to-score` measured them, as charts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from policy_accel.errors import UserError
from policy_accel.files import explained
from policy_accel.report.charts import Chart, Row, Table, rounded, shown, span, trace
from policy_accel.report.runs import as_number

COSTS = {
    "updates": "updates",
    "network_evaluations": "network evaluations",
    "samples": "samples",
    "seconds": "seconds",
    "flops": "FLOPs",
}


def measured_charts(path: Path, task: str) -> list[Chart]:
    """A chart for each target of a task.

    Raises:
        UserError: no result of the instrument, or it has another task.
    """
    with explained(path, "read"):
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        result = json.loads(text)
        if task not in result["tasks"]:
            known = ", ".join(map(str, result["tasks"]))
            raise UserError(f"--time-to-score {path} has the tasks {known}, and these runs are of {task}.")
        runs = [run for run in result["runs"] if run["task"] == task]
        targets = result["tasks"][task]["targets"]
        return [_chart(number, target, methods, runs) for number, (target, methods) in enumerate(targets.items())]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"--time-to-score {path} is no result of `policy-accel benchmark time-to-score` ({type(error).__name__}: "
            f"{error}); give the result.json of its folder."
        ) from error


def _chart(number: int, target: str, methods: dict[str, Any], runs: list[dict[str, Any]]) -> Chart:
    traces, rows, said = [], [], []
    for method, found in methods.items():
        median = as_number(found["costs"]["updates"]["median"])
        told = f"{shown(median)} updates" if median is not None else "no median"
        told += f", {found['reached']} of {found['runs']} runs" if found["reached"] < found["runs"] else ""
        said.append(f"{method} {told}")
        bar = trace("bar", method, None, x=rounded([median or 0.0]), y=[method], orientation="h", name=method)
        traces.append({**bar, "type": "bar", "text": [told], "textposition": "inside", "insidetextanchor": "start"})
        for run in (run for run in runs if run["method"] == method):
            reached = run["targets"][target]
            step = as_number(reached["costs"]["updates"]) if reached["status"] == "reached" else None
            label = f"{method}, seed {run['seed']}"
            point = {"x": [step], "y": [method], "mode": "markers", "name": label}
            traces.append(trace("point", method, str(run["seed"]), **point))
        rows.append(Row([method, f"{found['reached']} of {found['runs']}", *_cells(found["costs"])], method))
    header = ["arm", "reached", *COSTS.values(), "ratio of updates", "interval"]
    return Chart(
        f"measured-{number}",
        f"Cost of a score of {target}, measured",
        "By `policy-accel benchmark time-to-score`: checkpoints scored until each is known to reach the target or not. "
        "Bar: median of the training seeds, whatever is chosen above; dot: one run that reached it.",
        f"Cost of a score of {target}: {'; '.join(said)}.",
        traces,
        {"xaxis": {"title": "updates", "rangemode": "tozero"}, "yaxis": {"type": "category"}},
        Table(header, rows),
        height=110 + 40 * len(rows),
    )


def _cells(costs: dict[str, Any]) -> list[str]:
    ratio, interval = as_number(costs["updates"].get("ratio")), costs["updates"].get("ratio_interval")
    medians = [shown(as_number(costs[cost]["median"])) for cost in COSTS]
    return [*medians, shown(ratio), "–" if not interval else span(*map(as_number, interval))]
