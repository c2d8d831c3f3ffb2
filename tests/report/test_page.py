from __future__ import annotations

import json
import time
from pathlib import Path

import plotly.graph_objects
import pytest
from support.reported import CHARTS, HOSTILE, write_run, write_sweep

from policy_accel.errors import UserError
from policy_accel.report.collect import collect
from policy_accel.report.page import as_script_data, render, sections, write_page


def test_plotly_knows_every_attribute(tmp_path: Path) -> None:
    """Its own check of the figures, which the browser does not make."""
    runs = collect([write_sweep(tmp_path / "sweep", seeds=(1, 2))])
    charts = [chart for part in sections(runs, "baseline") for chart in part.charts]
    assert [chart.name for chart in charts] == CHARTS
    for chart in charts:
        layout = {name: {**axis, "title": {"text": axis.get("title", "")}} for name, axis in chart.layout.items()}
        plotly.graph_objects.Figure(chart.traces, layout)
        assert all(set(trace["meta"]) == {"role", "arm", "seed"} for trace in chart.traces)


def test_data_cannot_leave_their_element() -> None:
    text = as_script_data({"a": HOSTILE + "<!--"})
    assert not {"<", ">", "&"} & set(text)
    assert json.loads(text) == {"a": HOSTILE + "<!--"}


def test_a_sweep_of_a_hundred_runs(tmp_path: Path) -> None:
    """With ten thousand rows each: seconds, and less than 30 MB."""
    methods = tuple(f"method{number}" for number in range(20))
    sweep = write_sweep(tmp_path / "sweep", methods, (1, 2, 3, 4, 5))
    rows = "".join(f'{{"step": {step}, "loss": {1 / step}}}\n' for step in range(1, 2001))
    for run in sweep.glob("method*"):
        (run / "metrics.jsonl").write_text(rows)
    began = time.process_time()
    runs = collect([sweep])
    page = render(runs, sections(runs, "method0"), "sweep")
    assert time.process_time() - began < 10
    assert len(runs) == 100
    assert 5e6 < len(page.encode()) < 10e6


def test_only_a_report_is_replaced(tmp_path: Path, treasure: Path) -> None:
    runs = collect([write_run(tmp_path / "run", losses={1: 0.5})])
    page = render(runs, sections(runs, "baseline"), "first")
    path = tmp_path / "new" / "report.html"
    write_page(path, page)
    write_page(path, page.replace("first", "second"))
    assert "second" in path.read_text()
    for other in (treasure, tmp_path / "run"):
        with pytest.raises(UserError, match=r"--output .* (is not a report of ours|is a folder)"):
            write_page(other, page)
    link = tmp_path / "link.html"
    link.symlink_to(path)
    with pytest.raises(UserError, match="choose another path"):
        write_page(link, page)
    assert treasure.read_text() == "mine\n"


def test_parts_without_content_are_left_out(tmp_path: Path) -> None:
    runs = collect([write_run(tmp_path / "run", losses={1: 0.5})])
    assert [part.name for part in sections(runs, "baseline")] == ["curves", "runs"]
