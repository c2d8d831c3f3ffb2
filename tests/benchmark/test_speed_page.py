"""The table of floors on docs/speed.md against what is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from policy_accel.benchmark.counting import Counted
from policy_accel.benchmark.step import floor_of

PAGE = (Path(__file__).parents[2] / "docs" / "speed.md").read_text()
H200 = (989e12, 4.8e12)
ROWS = {
    cells[1].strip("`"): cells[2:]
    for line in PAGE.splitlines()
    if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 10 and cells[1].startswith("`recipe=")
}


def three(*values: float) -> list[str]:
    return [f"{value:.3g}" for value in values]


@pytest.mark.parametrize("recipe", ["small", "diffusion_policy"])
def test_a_row_is_what_is_counted(recipe: str, counted_recipe: Callable[[str], Counted]) -> None:
    counted = counted_recipe(recipe)
    floor = floor_of(counted, *H200)
    assert ROWS[f"recipe={recipe}"] == [
        str(counted.rows),
        *three(counted.parameters / 1e6, counted.flops / 1e12),
        *three(counted.adamw_bytes / 1e9, counted.averages_bytes / 1e9),
        *three((counted.gradient_bytes + counted.cast_bytes) / 1e9, counted.activation_bytes / 1e9),
        " + ".join(three(1e3 * floor.arithmetic_seconds, 1e3 * floor.memory_seconds)),
    ]


def test_every_floor_follows_from_its_row() -> None:
    assert len(ROWS) == 8
    for _, _, flops, adamw, averages, others, _, floor in ROWS.values():
        arithmetic, memory = map(float, floor.split(" + "))
        assert arithmetic == pytest.approx(1e3 * float(flops) * 1e12 / H200[0], rel=0.01)
        assert memory == pytest.approx(1e3 * (float(adamw) + float(averages) + float(others)) * 1e9 / H200[1], rel=0.01)


def test_the_page_says_what_is_not_measured() -> None:
    assert "**No figure of a GPU has been measured.**" in PAGE
