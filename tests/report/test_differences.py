"""The chart of differences holds what the comparison finds, whose own tests are beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.reported import write_run, write_sweep

from policy_accel.comparison.compare import compare
from policy_accel.report.collect import collect
from policy_accel.report.differences import comparison_of, difference_chart
from policy_accel.report.page import sections


def test_the_differences_of_a_comparison(tmp_path: Path) -> None:
    """kl is 0.1 above the baseline with each training seed."""
    runs = collect([write_sweep(tmp_path / "sweep", ("kl", "baseline", "momentum"))])
    comparison, _ = comparison_of(runs, "baseline")
    assert comparison is not None
    assert comparison == compare([run.scored for run in runs], "baseline")
    chart = difference_chart(comparison)
    found = {trace["meta"]["arm"]: trace for trace in chart.traces}
    assert set(found) == {"kl", "momentum"}
    assert found["kl"]["x"] == pytest.approx([-0.1])
    for one in comparison.differences:
        bars = found[one.arm]["error_x"]
        assert one.interval is not None
        assert found[one.arm]["x"][0] + bars["array"][0] == pytest.approx(one.interval[1], abs=1e-5)
        assert found[one.arm]["x"][0] - bars["arrayminus"][0] == pytest.approx(one.interval[0], abs=1e-5)
        assert one.sentence in chart.summary
    assert chart.table.rows[0].cells[1] == "-0.100"
    assert "on the same 2 evaluation seeds, with 95% intervals over training seeds and episodes" in chart.caption


def test_why_there_is_no_comparison(tmp_path: Path) -> None:
    """Nothing is said of one arm; of runs that cannot be compared, why."""
    one = write_run(tmp_path / "a", scores={400: 0.5}, episodes={1: 0.5})
    assert comparison_of(collect([one]), "baseline") == (None, "")
    other = write_run(tmp_path / "b", "kl", scores={400: 0.5}, episodes={2: 0.5})
    runs = collect([one, other])
    comparison, why_not = comparison_of(runs, "baseline")
    assert comparison is None
    assert why_not.startswith("The arms are not compared: ")
    assert "share no evaluation seed" in why_not
    assert sections(runs, "baseline")[0].text == why_not
