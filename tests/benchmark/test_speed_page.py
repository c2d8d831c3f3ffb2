"""The table of floors on docs/explanation/speed.md against what is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from policy_accel.benchmark.counting import Counted
from policy_accel.benchmark.step import floor_of

PAGE = (Path(__file__).parents[2] / "docs" / "explanation" / "speed.md").read_text()
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


def test_the_cost_of_float32_follows_from_the_reference_net() -> None:
    """Milliseconds of its arithmetic at 67 (float32), 494.5 (TF32) and 989 TFLOP/s (bf16)."""
    tera = float(ROWS["recipe=diffusion_policy"][2])
    exact, tf32, half = three(*(1e3 * tera / rate for rate in (67, 494.5, 989)))
    assert f"counted {tera:g} TFLOP" in PAGE
    text = " ".join(PAGE.split())
    expected = (
        f"{float(exact):.1f} ms of arithmetic an update in float32 (67 TFLOP/s) against {float(tf32):.2f} in TF32"
    )
    assert f"{expected} and {float(half):.2f} in bf16" in text


def test_the_page_says_what_is_not_measured() -> None:
    assert "**No figure of a GPU has been measured.**" in PAGE
