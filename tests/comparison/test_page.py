"""The figures of docs/how_to/compare.md are those of the code and of the recorded simulation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from policy_accel.comparison.power import Design, detectable


def rows(page: str, header: str) -> list[list[str]]:
    """The cells of a table's rows, given the beginning of its header."""
    lines = page[page.index(header) :].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_what_can_be_seen(repository: Path) -> None:
    page = (repository / "docs" / "how_to" / "compare.md").read_text()
    design = Design(0.01**2, 0.15**2, 2 * 0.05**2)
    for name, *cells in rows(page, "| detectable | 50"):
        seeds = int(re.findall(r"\d+", name)[0])
        expected = [f"{detectable(design.errors(seeds, n), 0.05 / 5):.3f}" for n in (50, 200, 1000)]
        assert cells == expected
    lucky = Design(0.03**2, 0.15**2, 2 * 0.05**2)
    assert 0.08 <= detectable(lucky.errors(5, 100_000), 0.05 / 5) < 0.085


def recorded(repository: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((repository / "benchmarks/results/compare_coverage.json").read_text())
    return found


def per_cent(rates: list[float]) -> str:
    low, high = (f"{100 * rate:.0f}" for rate in (min(rates), max(rates)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def test_coverage_is_as_recorded(repository: Path) -> None:
    page, result = (repository / "docs" / "how_to" / "compare.md").read_text(), recorded(repository)
    plain = {"form": "normal", "unsteady": None, "alike": 0.0, "arms": 6}
    designs = [row for row in result["no_difference"] if plain.items() <= row["design"].items()]
    for name, *cells in rows(page, "| training seeds"):
        own = [row for row in designs if row["design"]["seeds"] == [int(name.split()[0])]]
        assert len(own) >= 4
        figures = [row["separate"] for row in own]
        assert cells == [
            *(
                per_cent([figure[key] for figure in figures])
                for key in ("coverage_of_means", "coverage_of_differences", "false_positive_rate")
            ),
            per_cent([row["plain_percentile_coverage"]["runs_and_episodes_resampled"] for row in own]),
        ]
    assert f"Of {result['repetitions']} repetitions" in page


def test_what_is_said_of_unsteady_arms_and_of_power(repository: Path) -> None:
    page, result = " ".join((repository / "docs" / "how_to" / "compare.md").read_text().split()), recorded(repository)
    (unsteady,) = (row for row in result["no_difference"] if row["design"]["unsteady"] == 0)
    separate, pooled = (unsteady[name]["false_positive_rate"] for name in ("separate", "pooled"))
    assert f"in {100 * pooled:.0f} % of comparisons (without `--pooled` in {100 * separate:.0f} %)" in page
    found = [row["separate"]["found_of_a_detectable_difference"] for row in result["a_difference"]]
    assert f"differences as large as what is called detectable were found in {per_cent(found)}" in page
    worst = max(row["separate"]["false_positive_rate"] for row in result["no_difference"])
    assert worst <= 0.05 + 3 * result["standard_error_of_a_rate_of_0.05"]
