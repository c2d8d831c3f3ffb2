"""The table of the page is what was recorded."""

from __future__ import annotations

import json
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
RUNS = ("sample", "epsilon", "v", "flow")


def test_the_scores_of_the_page_are_those_of_the_result() -> None:
    page = (REPOSITORY / "docs" / "explanation" / "few_steps.md").read_text()
    runs = json.loads((REPOSITORY / "benchmarks" / "results" / "few_step_grids_cpu.json").read_text())["runs"]
    section = page.partition("### Where the second of two evaluations belongs")[2].partition("\n#")[0]
    shown = {
        cells[0]: cells[1:] for cells in re.findall(r"^\| (.*?) \| " + r"(.*?) \| " * 3 + r"(.*?) \|$", section, re.M)
    }
    recorded = [runs[name]["rows"] for name in RUNS]
    shares = ("0.1", "0.18", "0.25", "0.35", "0.5", "0.62", "0.75", "0.88")
    lines = ("8 evaluations, even", "4 evaluations, even", "1 evaluation", *shares)
    assert all(len(rows) == len(lines) for rows in recorded)
    for number, line in enumerate(lines):
        assert [cell.strip("*") for cell in shown[line]] == [f"{rows[number]['score']:.3f}" for rows in recorded], line
    for line, measure in (
        ("energy score", "energy_score"),
        ("squared error", "action_error"),
        ("distance to 16 evaluations", "distance_to_16"),
    ):
        found = [runs[name]["rank_correlation_with_score"][measure] for name in RUNS]
        assert shown[line] == tuple(f"{value:+.2f}" for value in found)
