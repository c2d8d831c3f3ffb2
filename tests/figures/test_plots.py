"""The plots: each shows the values of its record or of the package's functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import pytest
from matplotlib.figure import Figure

Script = Callable[[str], ModuleType]
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def record(name: str) -> Any:
    return json.loads((RESULTS / name).read_text())


@pytest.fixture
def drawn(script: Script) -> Callable[[str], Figure]:
    """A figure in the light scheme."""
    return lambda name: script(name).draw(script("style").SCHEMES["light"])


def words(figure: Figure) -> str:
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    return " ".join(" ".join(texts).split())


def test_the_files_are_those_that_the_scripts_draw(script: Script, folder: Path, tmp_path: Path) -> None:
    """Whoever changes a script or a record draws the picture again; another matplotlib draws other bytes."""
    for name in script("draw").FIGURES:
        for path in script("style").save(script(name).draw, name, tmp_path):
            here = (folder / path.name).read_text()
            if f"Matplotlib v{matplotlib.__version__}," in here:
                assert path.read_text() == here, (
                    f"{name} is not what its script draws: python docs/figures/draw.py {name}"
                )


def test_score_over_time_shows_the_ladder(script: Script, drawn: Callable[[str], Figure]) -> None:
    rungs = {row["rung"]: row for row in record("pusht_speedrun_cpu.json")["rungs"]}
    (axes,) = drawn("score_over_time").axes
    shown = {(round(x, 6), y) for line in axes.lines for x, y in zip(*line.get_data(), strict=True)}
    names = [name for name in rungs if name.startswith(("AdamW", "Muon")) and "8" in rungs[name]["sampling"]]
    for name in [*names, "published settings, 1,500 updates"]:
        assert (round(rungs[name]["cpu_seconds"] / 60, 6), rungs[name]["score"]) in shown, name
    bounds = {y for band in axes.collections for _, y in band.get_paths()[0].vertices}
    assert {bound for name in names for bound in rungs[name]["score_interval"]} <= bounds
    said = words(axes.figure)
    assert "Muon: 0.92 after 1.7 min, 0.94 after 2.4 min" in said
    assert "AdamW: 0.87 after 1.8 min, 0.92 after 4.6 min" in said


def test_the_published_time_is_its_updates_at_the_measured_pace(drawn: Callable[[str], Figure]) -> None:
    seconds = record("steps_per_second_reference_cpu.json")["sides"]["diffusion_policy"]["cpu_seconds_per_update"]
    (axes,) = drawn("score_over_time").axes
    assert any(list(line.get_data()[0]) == [210_000 * seconds / 60] * 2 for line in axes.lines)
    assert "210,000 updates at 8.19 s, measured with its own code: 19.9 days of one core (estimated)" in words(
        axes.figure
    )
    assert "on our small network, 1,500 updates in place of 210,000: 0.15" in words(axes.figure)
    assert "published: 0.95 best, 0.91 mean of the last ten" in words(axes.figure)


def test_speed_ladder_shows_the_ratios(drawn: Callable[[str], Figure]) -> None:
    figure = drawn("speed_ladder")
    for axes, net in zip(figure.axes, ("small", "reference"), strict=True):
        sides = record(f"steps_per_second_{net}_cpu.json")["sides"]
        lengths = [bar.get_width() for bar in axes.patches]
        expected = [sides[key]["times_the_diffusion_policy"]["median"] for key in ("baseline", "core beside", "core")]
        assert lengths == [expected[0], 1.0, *expected[1:]]
        ends = [list(line.get_xdata()) for line in axes.lines]
        core = sides["core"]["times_the_diffusion_policy"]
        assert [core["min"], core["max"]] in ends
    assert "1.32 x 63 ms" in words(figure)
    assert "1.61 x 5.1 s" in words(figure)
