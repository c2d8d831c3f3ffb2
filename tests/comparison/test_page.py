"""The figures of docs/compare.md are those of the code and of the recorded simulation."""

from __future__ import annotations

import re
from pathlib import Path

from policy_accel.comparison.power import Design, detectable


def rows(page: str, header: str) -> list[list[str]]:
    """The cells of a table's rows, given the beginning of its header."""
    lines = page[page.index(header) :].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_what_can_be_seen(repository: Path) -> None:
    page = (repository / "docs" / "compare.md").read_text()
    design = Design(0.01**2, 0.15**2, 2 * 0.05**2)
    for name, *cells in rows(page, "| detectable | 50"):
        seeds = int(re.findall(r"\d+", name)[0])
        expected = [f"{detectable(design.errors(seeds, n), 0.05 / 5):.3f}" for n in (50, 200, 1000)]
        assert cells == expected
    lucky = Design(0.03**2, 0.15**2, 2 * 0.05**2)
    assert 0.08 <= detectable(lucky.errors(5, 100_000), 0.05 / 5) < 0.085
