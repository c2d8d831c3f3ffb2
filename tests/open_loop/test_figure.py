"""The layout of the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from policy_accel.open_loop.figure import Played, draw


@pytest.mark.parametrize(("numbers", "rows"), [(2, 2), (7, 4), (9, 4)])
def test_legends_lie_outside_and_many_numbers_in_two_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: int, rows: int
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: (figures.append(figure), path.touch()))
    played = [Played(number, np.zeros((16, numbers)), [0, 8], np.zeros((2, 8, numbers))) for number in (3, 17)]
    errors: dict[str, Any] = {"rmse_by_step": np.ones((8, numbers)).tolist()}
    result = {
        "samplings": [{"network_evaluations": 1, "own": True, **errors}],
        "references": {"repeat_last": errors, "mean": errors},
        "n_action_steps": 8,
    }
    names = [f"joint {number}" for number in range(numbers)]
    drawn = min(numbers, 8)
    assert draw(tmp_path / "a.png", "a title", names, played, result) == drawn
    (figure,) = figures
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert len(shown) == 3 * drawn
    assert {axis.get_ylabel() for axis in shown} == {"", *names[:drawn]}
    assert figure.axes[0].get_gridspec().nrows == rows
    assert figure.get_figheight() < 10
    assert not any(axis.get_legend() for axis in shown)
    told = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    own = "1 evaluation (the run's own)"
    assert told == ["demonstrated", "predicted, a colour each chunk", own, "repeat the last action", "mean action"]
    lowest = [axis for axis in shown if axis.get_xlabel()]
    assert len(lowest) == (3 if numbers == 2 else 6)
