"""The numbers of the curves: each against one that is worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.reported import STEPS, score_of, write_lines, write_run, write_sweep

from policy_accel.report.charts import Chart, log_axis, rounded, shown
from policy_accel.report.collect import collect
from policy_accel.report.curves import band, curve_chart, thinned
from policy_accel.report.page import sections
from policy_accel.run_files import read_metrics


def traces(chart: Chart | None, role: str) -> list[dict[str, Any]]:
    assert chart is not None
    return [trace for trace in chart.traces if trace["meta"]["role"] == role]


def test_mean_and_range_over_seeds(tmp_path: Path) -> None:
    """Scores are u / 1000 + m / 10 + s / 100, s = 1, 2, 3: the mean is that of s = 2, the edges those of 1 and 3."""
    runs = collect([write_sweep(tmp_path / "sweep")])
    chart = curve_chart(runs, "score", "Score", lambda run: run.points("score"), axis="score")
    for number, arm in enumerate(("baseline", "kl")):
        (mean,) = (trace for trace in traces(chart, "mean") if trace["meta"]["arm"] == arm)
        assert mean["x"] == list(STEPS)
        assert mean["y"] == pytest.approx([score_of(number, 2, step) for step in STEPS])
        (edge,) = (trace for trace in traces(chart, "band") if trace["meta"]["arm"] == arm)
        assert edge["x"] == [*STEPS, *reversed(STEPS)]
        high, low = ([score_of(number, seed, step) for step in STEPS] for seed in (3, 1))
        assert edge["y"] == pytest.approx([*high, *reversed(low)])
        seeds = [trace for trace in traces(chart, "seed") if trace["meta"]["arm"] == arm]
        assert [trace["meta"]["seed"] for trace in seeds] == ["1", "2", "3"]
        assert seeds[2]["y"] == pytest.approx(high)
    assert chart is not None
    assert chart.table.header == ["arm", "100 updates", "200 updates", "300 updates", "400 updates"]
    assert list(chart.table.rows[1].cells) == [
        "kl", "0.220 (0.210 to 0.230)", "0.320 (0.310 to 0.330)", "0.420 (0.410 to 0.430)", "0.520 (0.510 to 0.530)",
    ]  # fmt: skip
    assert "baseline 0.420; kl 0.520" in chart.summary
    assert "3 training seeds an arm" in chart.caption


def test_the_newest_losses_by_noise_level(tmp_path: Path) -> None:
    rows = [{"step": step, "noise_levels": {"loss": {"2.00": 0.1 * step, "-3.50": 1.0}}} for step in (1, 2)]
    runs = [write_run(tmp_path / name, losses={1: 0.5}) for name in ("with", "without")]
    write_lines(runs[0] / "metrics.jsonl", [*read_metrics(runs[0] / "metrics.jsonl"), *rows, {"step": 3, "loss": 0.4}])
    (curves,) = (part for part in sections(collect(runs), "baseline") if part.name == "curves")
    chart = curves.charts[-1]
    (line,) = traces(chart, "seed")
    assert (chart.name, line["x"], line["y"]) == ("noise-levels", [-3.5, 2.0], [1.0, 0.2])
    assert chart.layout["xaxis"] == {"title": "log SNR"}
    assert chart.table.header == ["arm", "-3.500 log SNR", "2 log SNR"]


def test_a_band_is_where_all_seeds_are() -> None:
    """y = x and y = 3 x on other updates: between the points they are straight lines, the mean is 2 x."""
    steps, mean, low, high = band([[(0, 0), (4, 4), (10, 10)], [(2, 6), (8, 24)]])
    assert steps.tolist() == [2, 4, 8]
    assert mean.tolist() == [4, 8, 16]
    assert low.tolist() == [2, 4, 8]
    assert high.tolist() == [6, 12, 24]
    assert not len(band([[(0, 1), (1, 1)], [(2, 1), (3, 1)]])[0])


def test_long_curves_are_thinned() -> None:
    """The ends stay, and means of neighbours keep the mean of the whole."""
    points = [(float(i), float(i * i)) for i in range(1002)]
    few = thinned(points, 102, mean=True)
    assert len(few) == 102
    assert (few[0], few[-1]) == (points[0], points[-1])
    assert np.mean([y for _, y in few[1:-1]]) == pytest.approx(np.mean([y for _, y in points[1:-1]]))
    assert few[1] == (5.5, np.mean([i * i for i in range(1, 11)]))
    some = thinned(points, 11)
    assert len(some) == 11
    assert (some[0], some[-1]) == (points[0], points[-1])
    assert set(some) <= set(points)
    assert thinned(points[:5], 11) == points[:5]


def test_one_run_has_a_line_and_no_band(tmp_path: Path) -> None:
    runs = collect([write_run(tmp_path / "run", losses={100: 0.5, 200: float("nan"), 300: 0.25})])
    chart = curve_chart(runs, "loss", "Loss", lambda run: run.points("loss"), axis="loss", log=True)
    (line,) = traces(chart, "seed")
    assert (line["x"], line["y"]) == ([100, 300], [0.5, 0.25])
    assert [trace["x"] for trace in traces(chart, "band")] == [[]]
    assert chart is not None
    assert chart.caption == "One run of each arm."
    assert curve_chart(runs, "score", "Score", lambda run: run.points("score"), axis="score") is None


def test_a_logarithmic_axis_has_marks_among_the_values() -> None:
    for low, high in ((0.011, 0.033), (1e-6, 10.0), (0.2, 0.6), (3.0, 4000.0)):
        axis = log_axis("loss", [low, high])
        inside = [mark for mark in axis["tickvals"] if low <= mark <= high]
        assert 3 <= len(inside) <= 9, inside
        assert [float(text) for text in axis["ticktext"]] == pytest.approx(axis["tickvals"])
    assert "type" not in log_axis("loss", [0.0])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.77447, "0.774"), (1000.0, "1,000"), (0.0, "0"), (3.85e-9, "3.85e-09"), (None, "–"), (float("nan"), "–"),
     (12345.6, "12,346"), (4.2e12, "4,200,000,000,000"), (0.01234, "0.0123"), (2.5e7 + 0.5, "2.5e+07"),
     (-0.25, "-0.250")],
)  # fmt: skip
def test_numbers_as_a_person_reads_them(value: float | None, text: str) -> None:
    assert shown(value) == text


def test_numbers_of_traces_are_finite_or_missing() -> None:
    assert rounded([1.23456789, float("inf"), None, float("nan")]) == [1.23457, None, None, None]
