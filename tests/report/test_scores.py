"""Scores of every seed, few-step curves and the cost of a score, against numbers worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from support.reported import STEPS, score_of, write_run, write_sweep

from policy_accel.report.collect import collect
from policy_accel.report.runs import ReportedRun
from policy_accel.report.scores import (
    default_target,
    few_step_chart,
    few_step_points,
    first_reached,
    seeds_chart,
    target_chart,
)


@pytest.fixture
def runs(tmp_path: Path) -> list[ReportedRun]:
    return collect([write_sweep(tmp_path / "sweep")])


def test_every_training_seed_is_a_point(runs: list[ReportedRun]) -> None:
    chart = seeds_chart(runs)
    assert chart is not None
    points = {(t["meta"]["arm"], t["meta"]["seed"]): t["x"] for t in chart.traces if t["meta"]["role"] == "point"}
    assert points == {(a, str(s)): [score_of(m, s, 400)] for m, a in enumerate(("baseline", "kl")) for s in (1, 2, 3)}
    means = {t["meta"]["arm"]: t["x"] for t in chart.traces if t["meta"]["role"] == "mean"}
    assert means == {"baseline": [0.42], "kl": [0.52]}
    assert list(chart.table.rows[0].cells) == ["baseline", "1", "0.410", "0.310 to 0.510", "2"]
    assert chart.table.header[-1] == "episodes"


def test_the_cost_of_a_score(runs: list[ReportedRun]) -> None:
    """0.4 is reached at 400 by the baseline's seeds (0.41, 0.42, 0.43) and at 300 by kl's (0.41 and on)."""
    chart = target_chart(runs, 0.4)
    assert chart is not None
    bars = {t["meta"]["arm"]: (t["x"], t["text"]) for t in chart.traces if t["meta"]["role"] == "bar"}
    assert bars == {"baseline": ([400.0], ["400 updates"]), "kl": ([300.0], ["300 updates"])}
    assert chart.table.header == ["arm", "training seed", "updates", "samples", "seconds"]
    assert list(chart.table.rows[3].cells) == ["kl", "1", "300", "19,200", "150"]


def test_runs_that_do_not_reach_it_are_counted(runs: list[ReportedRun]) -> None:
    """0.425 is reached by the baseline's third seed alone; 0.525 by no baseline and by kl's third."""
    chart = target_chart(runs, 0.425)
    assert chart is not None
    bars = {t["meta"]["arm"]: t["text"][0] for t in chart.traces if t["meta"]["role"] == "bar"}
    assert bars == {"baseline": "400 updates, 1 of 3 runs", "kl": "367 updates"}
    points = [t["x"] for t in chart.traces if t["meta"]["role"] == "point" and t["meta"]["arm"] == "baseline"]
    assert points == [[None], [None], [400.0]]
    assert chart.table.rows[0].cells[2:] == ["not reached", "–", "–"]
    none = target_chart(runs, 0.525)
    assert none is not None
    assert "baseline not reached, 0 of 3 runs" in none.summary


def test_the_default_target(runs: list[ReportedRun]) -> None:
    """Nine tenths of 0.42 (baseline) or 0.52, in two digits."""
    assert default_target(runs, "baseline") == pytest.approx(0.38)
    assert default_target(runs, "kl") == pytest.approx(0.47)
    assert default_target([], "kl") is None
    assert first_reached(runs[0], 0.41) == 400
    assert first_reached(runs[0], 0.4101) is None


def test_scores_that_were_made_at_the_end_alone_have_no_cost(tmp_path: Path) -> None:
    runs = collect([write_run(tmp_path / "run", scores={400: 0.5})])
    assert target_chart(runs, 0.4) is None


def test_few_step_curves(runs: list[ReportedRun]) -> None:
    """1, 2 and 8 evaluations on a scale of powers of two; the latest of each number counts."""
    runs[0].evaluations.append({"step": STEPS[-1], "score": 0.7, "network_evaluations": 2})
    runs[0].evaluations.insert(0, {"step": 100, "score": 0.9, "network_evaluations": 4})
    assert few_step_points(runs[0]) == [(1, 0.1), (2, 0.7), (8, 0.41)]
    chart = few_step_chart(runs)
    assert chart is not None
    seeds = [trace for trace in chart.traces if trace["meta"]["role"] == "seed"]
    assert seeds[1]["x"] == [math.log2(count) for count in (1, 2, 8)]
    assert seeds[1]["y"] == [0.2, 0.4, 0.42]
    assert chart.layout["xaxis"]["ticktext"] == ["1", "2", "8"]
    means = [trace for trace in chart.traces if trace["meta"]["role"] == "mean"]
    assert means[0]["y"] == pytest.approx([0.2, (0.7 + 0.4 + 0.6) / 3, 0.42], abs=1e-5)
    assert list(chart.table.rows[0].cells) == ["baseline", "1", "0.100", "0.700", "0.410"]
    assert few_step_chart(runs[:1]) is not None
    del runs[0].evaluations[:]
    assert few_step_chart(runs[:1]) is None
