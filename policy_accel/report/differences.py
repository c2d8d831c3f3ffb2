"""How the arms differ from the baseline: what a comparison finds, as a chart."""

from __future__ import annotations

from collections.abc import Sequence

from policy_accel.comparison.compare import compare
from policy_accel.comparison.result import Comparison, Difference
from policy_accel.errors import UserError
from policy_accel.report.charts import Chart, Row, Table, rounded, shown, trace
from policy_accel.report.runs import ReportedRun


def comparison_of(runs: Sequence[ReportedRun], baseline: str) -> tuple[Comparison | None, str]:
    """What can be said of the arms, or None and why nothing can; "" where there is only one arm."""
    scored = [run.scored for run in runs]
    if len({run.arm for run in scored if run.score is not None}) < 2:
        return None, ""
    try:
        return compare(scored, baseline), ""
    except UserError as error:
        return None, f"The arms are not compared: {error}"


def difference_chart(comparison: Comparison) -> Chart:
    """Each arm less the baseline on the same evaluation seeds, with its interval."""
    traces, rows = [], []
    for one in comparison.differences:
        bars = {}
        if one.interval is not None:
            below, above = one.value - one.interval[0], one.interval[1] - one.value
            bars = {"error_x": {"symmetric": False, "array": rounded([above]), "arrayminus": rounded([below])}}
        point = {"x": rounded([one.value]), "y": [one.arm], "mode": "markers"}
        traces.append(trace("interval", one.arm, None, **point, **bars, name=f"{one.arm} less {comparison.baseline}"))
        rows.append(Row(_cells(one), one.arm))
    count = len(comparison.evaluation_seeds)
    paired = f"on the same {count} evaluation seeds, " if count else ""
    header = ["arm", "difference", f"{comparison.confidence:.0%} interval", "p", "p after Holm", "would be found"]
    return Chart(
        "differences",
        f"Difference from {comparison.baseline}",
        f"Score of an arm less that of {comparison.baseline}, {paired}with {comparison.confidence:.0%} intervals over "
        f"training seeds{' and episodes' if count else ''}; all training seeds, whatever is chosen above. An interval "
        "that does not reach 0 may still be chance where there are many arms: see p after Holm.",
        " ".join(one.sentence for one in comparison.differences),
        traces,
        {
            "xaxis": {"title": f"difference in {comparison.measure}", "zeroline": True, "zerolinewidth": 2},
            "yaxis": {"type": "category"},
        },
        Table(header, rows),
        height=110 + 34 * len(rows),
    )


def _cells(one: Difference) -> list[str]:
    interval = "–" if one.interval is None else f"{one.interval[0]:+.3f} to {one.interval[1]:+.3f}"
    return [one.arm, f"{one.value:+.3f}", interval, shown(one.p), shown(one.corrected), shown(one.detectable)]
