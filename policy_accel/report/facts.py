"""Tables of the page: the runs, the settings by which the arms differ, machines and versions."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence

from policy_accel.machine import package_version, processor
from policy_accel.report.charts import Row, Table, shown
from policy_accel.report.runs import ReportedRun, arms_of, as_number, of_arm, shown_interval

PER_RUN = ("run_dir", "seed")
PACKAGES = ("policy-accel", "plotly", "torch", "numpy")
VALUES_SHOWN = 3


def runs_table(runs: Sequence[ReportedRun]) -> Table:
    """Every run: how far it is, its latest score and losses, what it took."""
    rows = []
    for run in runs:
        evaluation = run.evaluation
        interval = shown_interval(evaluation)
        updates = max((step for step, _ in run.points("loss")), default=run.state.get("step"))
        score = shown(as_number(evaluation.get("score")))
        losses = (_last(run, key) for key in ("loss", "validation_loss"))
        cells = [
            run.arm,
            run.seed,
            f"{score} ({interval})" if interval else score,
            shown(as_number(evaluation.get("success_rate"))),
            shown(run.action_error),
            f"{shown(as_number(updates))} of {shown(as_number(run.settings.get('training.steps')))}",
            *(shown(loss) for loss in losses),
            shown(_last(run, "training_seconds")),
            run.run_dir.name,
        ]
        rows.append(Row(cells, run.arm, run.seed))
    header = ["arm", "training seed", "score", "success", "action error", "updates"]
    header += ["loss", "validation loss", "seconds", "directory"]
    empty = [place for place in range(3, 9) if all(row.cells[place] == "–" for row in rows)]
    keep = [place for place in range(len(header)) if place not in empty]
    return Table([header[i] for i in keep], [Row([row.cells[i] for i in keep], row.arm, row.seed) for row in rows])


def settings_table(runs: Sequence[ReportedRun]) -> Table:
    """The settings of which not all runs have the same value, but for seed and directory; a column for each arm."""
    arms = arms_of(runs)
    rows = []
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        values = {str(run.settings.get(key, "–")) for run in runs}
        if key not in PER_RUN and len(values) > 1:
            rows.append(Row([key, *(_values(of_arm(runs, arm), key) for arm in arms)]))
    return Table(["setting", *arms], rows)


def _values(runs: Sequence[ReportedRun], key: str) -> str:
    found = list(dict.fromkeys(str(run.settings.get(key, "–")) for run in runs))
    more = f" and {len(found) - VALUES_SHOWN} more" if len(found) > VALUES_SHOWN else ""
    return ", ".join(found[:VALUES_SHOWN]) + more


def machine_table(runs: Sequence[ReportedRun]) -> Table:
    """What the checkpoints of the runs say of how they were trained."""
    rows = []
    for run in runs:
        state = run.state
        cells = [str(state.get(key, "–")) for key in ("threads", "precision", "matmul_precision")]
        versions = [str(state.get(key, "–")) for key in ("device", "torch", "policy-accel")]
        rows.append(Row([run.arm, run.seed, *versions, *cells, str(state.get("data", "–"))[:12]], run.arm, run.seed))
    header = ["arm", "training seed", "device", "torch", "policy-accel", "CPU threads", "precision", "products", "data"]
    return Table(header, rows)


def report_facts() -> list[tuple[str, str]]:
    """The machine that made the report, and its versions."""
    packages = ", ".join(f"{name} {package_version(name)}" for name in PACKAGES)
    return [
        ("Made", time.strftime("%Y-%m-%d %H:%M %Z")),
        ("Versions", f"{packages}, Python {platform.python_version()}"),
        ("Machine", f"{platform.system()} {platform.machine()}, {processor()}, {os.cpu_count()} cores"),
    ]


def _last(run: ReportedRun, key: str) -> float | None:
    points = run.points(key)
    return points[-1][1] if points else None
