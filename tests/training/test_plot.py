from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.axes
import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from policy_accel.errors import UserError
from policy_accel.training.plot import plot_learning_curve


def drawn(run_dir: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any, Any]]:
    """What is drawn with error bars: (steps, scores, [below, above])."""
    calls: list[tuple[Any, Any, Any]] = []
    original = matplotlib.axes.Axes.errorbar

    def note(self: Any, x: Any, y: Any, yerr: Any = None, **options: Any) -> Any:
        calls.append((x, y, yerr))
        return original(self, x, y, yerr=yerr, **options)

    monkeypatch.setattr(matplotlib.axes.Axes, "errorbar", note)
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = plot_learning_curve(run_dir)
    assert path == run_dir / "learning_curve.png"
    assert np.asarray(Image.open(path)).std() > 0
    return calls


LOSSES = [{"step": step, "loss": 1.0 / step, "validation_loss": 2.0 / step} for step in range(1, 5)]


@pytest.mark.parametrize("mean", [np.nextafter(0.1, 0.0), 0.1, np.nextafter(0.1, 1.0)])
def test_episodes_that_all_score_the_same_are_drawn(
    mean: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of equal numbers may be rounded to beside them: (0.1 + 0.1 + 0.1) / 3 > 0.1."""
    rows = [{"step": 4, "score": float(mean), "score_interval": [0.1, 0.1], "confidence": 0.95}]
    ((steps, scores, (below, above)),) = drawn(tmp_path, [*LOSSES, *rows], monkeypatch)
    assert (steps, scores) == ([4], [mean])
    assert min(*below, *above) >= 0.0
    assert max(*below, *above) == pytest.approx(0.0, abs=1e-15)


def test_error_bars_reach_to_the_ends_of_the_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"step": 2, "score": 0.5, "score_interval": [0.25, 1.0], "confidence": 0.95},
        {"step": 4, "score": 0.75, "score_interval": [0.5, 0.875], "confidence": 0.95},
    ]
    ((steps, scores, (below, above)),) = drawn(tmp_path, [*LOSSES, *rows], monkeypatch)
    assert (steps, scores) == ([2, 4], [0.5, 0.75])
    assert (below, above) == ([0.25, 0.25], [0.5, 0.125])


@pytest.mark.parametrize("score", [0.5, 5.4, -40.0, 3e9])
def test_a_score_of_any_size_is_seen(score: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, float]] = []
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, *_, **__: seen.append(self.axes[1].get_ylim())
    )
    row = {"step": 4, "score": score, "score_interval": [score, score + 0.1], "confidence": 0.95}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in [*LOSSES, row]))
    with pytest.raises(UserError):  # nothing was written
        plot_learning_curve(tmp_path)
    assert seen[0][0] < score < score + 0.1 < seen[0][1]


def test_scores_without_intervals_and_losses_alone_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(tmp_path, [*LOSSES, {"step": 4, "score": 0.5}], monkeypatch) == [([4], [0.5], None)]
    assert drawn(tmp_path, LOSSES, monkeypatch) == []


def test_the_loss_by_noise_level_is_drawn_at_some_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 5 of 11, the last among them, under the score and with an axis of its own."""
    lines: list[tuple[list[float], list[float]]] = []
    monkeypatch.setattr(
        matplotlib.figure.Figure,
        "savefig",
        lambda self, *_, **__: lines.extend(
            (list(line.get_xdata()), list(line.get_ydata())) for line in self.axes[2].lines
        ),
    )
    rows = [
        {"step": step, "noise_levels": {"data": "held-out", "loss": {"-9.50": 1.0, "4.00": 0.1 * step, "-0.25": 0.5}}}
        for step in range(1, 12)
    ]
    odd = [{"step": 12, "noise_levels": wrong} for wrong in (3, {"loss": [1.0]}, {"loss": {"x": 1.0, "nan": 2.0}})]
    scored = {"step": 4, "score": 0.5}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*LOSSES, *rows, *odd, scored]))
    with pytest.raises(UserError):  # nothing was written
        plot_learning_curve(tmp_path)
    assert [x for x, _ in lines] == 5 * [[-9.5, -0.25, 4.0]]
    assert [y[-1] for _, y in lines] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.1])


def test_rows_of_another_kind_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = [{"loss": 1.0}, {"step": 1, "loss": "x"}, {"step": 2, "score": [0.5]}, {"step": 3, "loss": None}]
    scored = [{"step": 4, "loss": 0.5, "score": 0.5, "score_interval": "wide"}]
    assert drawn(tmp_path, [*LOSSES, *odd, *scored], monkeypatch) == [([4], [0.5], None)]
