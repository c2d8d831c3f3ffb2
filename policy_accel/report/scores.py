"""Charts of scores: of every training seed, over network evaluations, and what it costs to reach a score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from policy_accel.parsing import is_number
from policy_accel.report.charts import BAR_TEXT, Chart, Row, Table, rounded, shown, trace
from policy_accel.report.runs import ReportedRun, arms_of, as_number, of_arm, shown_interval

TARGET_SHARE = 0.9
COSTS = {"samples": "samples", "training_seconds": "seconds", "training_flops": "FLOPs"}


def final_score(run: ReportedRun) -> float | None:
    """The latest score of a run; higher is better on either track."""
    return as_number(run.evaluation.get("score"))


def seeds_chart(runs: Sequence[ReportedRun]) -> Chart | None:
    """Every training seed a point, on a row for its arm."""
    traces, rows, said = [], [], []
    for arm in arms_of(runs):
        own = [(run, score) for run in of_arm(runs, arm) if (score := final_score(run)) is not None]
        for run, score in own:
            traces.append(
                trace(
                    "point", arm, run.seed, x=rounded([score]), y=[arm], mode="markers", name=f"{arm}, seed {run.seed}"
                )
            )
            episodes = run.evaluation.get("episodes")
            count = len(episodes) if isinstance(episodes, list) else as_number(run.evaluation.get("score_images"))
            cells = [arm, run.seed, shown(score), shown_interval(run.evaluation) or "–", shown(count)]
            rows.append(Row(cells, arm, run.seed))
        if own:
            mean = float(np.mean([score for _, score in own]))
            said.append(f"{arm} {shown(mean)}")
            traces.append(trace("mean", arm, None, x=rounded([mean]), y=[arm], mode="markers", name=f"{arm}, mean"))
    if not traces:
        return None
    images = runs[0].track == "images"
    return Chart(
        "seeds",
        "Score of every training seed",
        "A dot is one training run, the upright line the mean of its arm. Higher is better.",
        f"Mean score by arm: {', '.join(said)}.",
        traces,
        {"xaxis": {"title": "score"}, "yaxis": {"type": "category", "autorange": "reversed"}},
        Table(["arm", "training seed", "score", "interval", "images" if images else "episodes"], rows),
        follows="row",
        height=110 + 34 * len(said),
    )


def default_target(runs: Sequence[ReportedRun], baseline: str) -> float | None:
    """Nine tenths of the best score that the baseline's runs log on average, in two digits; None without."""
    best = [max(value for _, value in points) for run in of_arm(runs, baseline) if (points := run.points("score"))]
    if not best or np.mean(best) <= 0:
        return None
    return float(f"{TARGET_SHARE * float(np.mean(best)):.2g}")


def first_reached(run: ReportedRun, target: float) -> float | None:
    """The update of the first logged score of at least `target`; None when there is none."""
    return next((step for step, score in run.points("score") if score >= target), None)


def target_chart(runs: Sequence[ReportedRun], target: float) -> Chart | None:
    """Updates until a logged score is at least `target`; None when no run logs scores during training."""
    scored = [run for run in runs if len(run.points("score")) > 1]
    if not scored:
        return None
    traces, rows, said = [], [], []
    for arm in arms_of(scored):
        own = of_arm(scored, arm)
        reached = [(run, step) for run in own if (step := first_reached(run, target)) is not None]
        mean = float(np.mean([step for _, step in reached])) if reached else None
        text = f"{shown(round(mean))} updates" if mean is not None else "not reached"
        if len(reached) < len(own):
            text += f", {len(reached)} of {len(own)} runs"
        said.append(f"{arm} {text}")
        written = {"text": [text], **BAR_TEXT}
        bar = trace("bar", arm, None, x=rounded([mean or 0.0]), y=[arm], orientation="h", name=arm)
        traces.append({**bar, **written, "type": "bar"})
        for run in own:
            step = first_reached(run, target)
            label = f"{arm}, seed {run.seed}"
            traces.append(trace("point", arm, run.seed, x=[step], y=[arm], mode="markers", name=label))
            rows.append(_cost_row(run, step))
    costs = [name for key, name in COSTS.items() if any(run.points(key) for run in scored)]
    return Chart(
        "target",
        f"Updates to a score of {shown(target)}",
        f"Until the first score of at least {shown(target)} that a run logged. Bar: mean of the runs that reached it; "
        "dot: one run. Scores come at evaluations alone, so that a run may have been there before.",
        f"Updates to a score of {shown(target)}: {'; '.join(said)}.",
        traces,
        {"xaxis": {"title": "updates", "rangemode": "tozero"}, "yaxis": {"type": "category", "autorange": "reversed"}},
        Table(
            ["arm", "training seed", "updates", *costs], [Row(r.cells[: 3 + len(costs)], r.arm, r.seed) for r in rows]
        ),
        follows="row",
        height=110 + 40 * len(said),
    )


def _cost_row(run: ReportedRun, step: float | None) -> Row:
    """What a run had cost at an update, by its log."""
    cells = [run.arm, run.seed, "not reached" if step is None else shown(step)]
    for key in COSTS:
        points = run.points(key)
        if step is None or not points or step > points[-1][0]:
            cells.append("–")
        else:
            cells.append(shown(float(np.interp(step, *np.array(points).T))))
    return Row(cells, run.arm, run.seed)


def few_step_points(run: ReportedRun) -> list[tuple[int, float]]:
    """(network evaluations of a sample, score) of the newest checkpoint that was scored, ascending; the latest of each.

    `policy-accel evaluate RUN --sampling-steps K` makes them.
    """
    plain = [r for r in run.evaluations if not r.get("control")]  # a late policy's score says nothing of its sampling
    results = [r for r in plain if is_number(r.get("score")) and is_number(r.get("network_evaluations"))]
    newest = max((r["step"] for r in results if is_number(r.get("step"))), default=None)
    found = {int(r["network_evaluations"]): float(r["score"]) for r in results if r.get("step") == newest}
    return sorted(found.items())


def few_step_chart(runs: Sequence[ReportedRun]) -> Chart | None:
    """Score over network evaluations; None unless a run was scored with several numbers of them."""
    from policy_accel.report.curves import curve_chart

    if not any(len(few_step_points(run)) > 1 for run in runs):
        return None
    several = [run for run in runs if few_step_points(run)]

    def points_of(run: ReportedRun) -> list[tuple[float, float]]:
        return [(math.log2(count), score) for count, score in few_step_points(run)]

    chart = curve_chart(several, "few-steps", "Score with few steps", points_of, axis="score", better="higher")
    assert chart is not None
    counts = sorted({count for run in several for count, _ in few_step_points(run)})
    axis = {
        "title": "network evaluations of a sample",
        "tickvals": rounded([math.log2(count) for count in counts]),
        "ticktext": [str(count) for count in counts],
    }
    rows = [
        Row([run.arm, run.seed, *(shown(dict(few_step_points(run)).get(count)) for count in counts)], run.arm, run.seed)
        for run in several
    ]
    summary = f"Score with {', '.join(map(str, counts))} network evaluations, of {len(several)} runs; see the table."
    header = ["arm", "training seed", *(f"{count} evaluation{'s' * (count > 1)}" for count in counts)]
    return Chart(
        chart.name,
        chart.title,
        chart.caption,
        summary,
        chart.traces,
        {**chart.layout, "xaxis": axis},
        Table(header, rows),
        follows="curves",
    )
