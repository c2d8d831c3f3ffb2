"""Costs to a score as `policy-accel benchmark time-to-score` measured them, as charts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from policy_accel.errors import UserError
from policy_accel.files import explained
from policy_accel.parsing import from_json
from policy_accel.report.charts import BAR_TEXT, Chart, Row, Table, rounded, shown, span, trace
from policy_accel.report.runs import ReportedRun, as_number

COSTS = {
    "updates": "updates",
    "network_evaluations": "network evaluations",
    "samples": "samples",
    "seconds": "seconds",
    "flops": "FLOPs",
}


@dataclass(frozen=True)
class MeasuredTask:
    """What the instrument found of a task.

    Attributes:
        charts: one for each target.
        rows: of each run, by the name of its directory, the scores of its checkpoints, as rows of metrics.jsonl.
        few: of each run, likewise, its scores with few steps, as rows of evaluations.jsonl.
    """

    charts: list[Chart]
    rows: dict[str, list[dict[str, Any]]]
    few: dict[str, list[dict[str, Any]]]

    def added_to(self, run: ReportedRun) -> ReportedRun:
        """The run with these scores beside those that it logged."""
        name = run.run_dir.name
        rows, few = self.rows.get(name, []), self.few.get(name, [])
        return replace(run, rows=[*run.rows, *rows], evaluations=[*run.evaluations, *few])


def measured_task(path: Path, task: str) -> MeasuredTask:
    """Read a result.

    Raises:
        UserError: no result of the instrument, or it has another task.
    """
    with explained(path, "read"):
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        result = from_json(text)
        if task not in result["tasks"]:
            known = ", ".join(map(str, result["tasks"]))
            raise UserError(f"--time-to-score {path} has the tasks {known}, and these runs are of {task}.")
        runs, found = [run for run in result["runs"] if run["task"] == task], result["tasks"][task]
        return MeasuredTask(
            [
                _chart(number, target, methods, runs)
                for number, (target, methods) in enumerate(found["targets"].items())
            ],
            {run["run"]: [{"step": c["updates"], "score": c["score"]} for c in run["checkpoints"]] for run in runs},
            _few_steps(found["few_steps"], runs, result["plan"]["checkpoints"]["last"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"--time-to-score {path} is no result of `policy-accel benchmark time-to-score` ({type(error).__name__}: "
            f"{error}); give the result.json of its folder."
        ) from error


def _few_steps(steps: dict[str, Any], runs: list[dict[str, Any]], last: int) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for methods in steps.values():
        for method, found in methods.items():
            own = [run for run in runs if run["method"] == method]
            for run, score in zip(own, found["runs"], strict=True):
                evaluations = found["network_evaluations"]
                rows.setdefault(run["run"], []).append(
                    {"step": last, "score": score, "network_evaluations": evaluations}
                )
    return rows


def _chart(number: int, target: str, methods: dict[str, Any], runs: list[dict[str, Any]]) -> Chart:
    traces, rows, said = [], [], []
    for method, found in methods.items():
        median = as_number(found["costs"]["updates"]["median"])
        written = shown(median) if median is not None else "no median"
        written += f", {found['reached']} of {found['runs']}" if found["reached"] < found["runs"] else ""
        said.append(f"{method} {written}")
        bar = trace("bar", method, None, x=rounded([median or 0.0]), y=[method], orientation="h", name=method)
        traces.append({**bar, "type": "bar", "text": [written], **BAR_TEXT})
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
        "Bar: median of the training seeds, whatever is chosen above; dot: a run that reached it; 2 of 3: so many did.",
        f"Updates to a score of {target}, and of how many runs: {'; '.join(said)}.",
        traces,
        {"xaxis": {"title": "updates", "rangemode": "tozero"}, "yaxis": {"type": "category"}},
        Table(header, rows),
        height=110 + 40 * len(rows),
    )


def _cells(costs: dict[str, Any]) -> list[str]:
    ratio, interval = as_number(costs["updates"].get("ratio")), costs["updates"].get("ratio_interval")
    medians = [shown(as_number(costs[cost]["median"])) for cost in COSTS]
    return [*medians, shown(ratio), "–" if not interval else span(*map(as_number, interval))]
