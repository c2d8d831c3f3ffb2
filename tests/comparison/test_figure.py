"""The picture holds the numbers, and no scores make it fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.scored_runs import write_arms

from policy_accel.comparison.compare import compare
from policy_accel.comparison.figure import draw, figure_of
from policy_accel.comparison.scores import scored_runs
from policy_accel.errors import UserError


def test_what_is_drawn(tmp_path: Path) -> None:
    arms = {"baseline": np.array([[0.2, 0.4], [0.4, 0.6]]), "kl": np.array([[0.8, 0.9]])}
    found = compare(scored_runs(write_arms(tmp_path, arms)))
    left, right = figure_of(found).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["baseline", "kl"]
    drawn = [line.get_xdata().tolist() for line in left.get_lines() if line.get_marker() in "oD"]
    assert drawn == [pytest.approx(values) for values in ([0.3, 0.5], [0.4], [0.85], [0.85])]
    low, high = found.differences[0].interval or (0.0, 0.0)
    (bar,) = right.collections[0].get_segments()
    assert bar[:, 0] == pytest.approx([low, high])
    assert right.get_xlim()[0] < low < high < right.get_xlim()[1]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_scores_and_any_name(value: float, tmp_path: Path) -> None:
    found = compare(scored_runs(write_arms(tmp_path, {name: np.full((2, 3), value) for name in ("a", "b")})))
    named = replace(found, arms=[replace(arm, name="$\\frac{ x=") for arm in found.arms])
    path = tmp_path / "here" / "c.png"
    draw(named, path)
    with Image.open(path) as picture:
        assert picture.size[0] == 1320
        assert picture.getpixel((1, 1))[:3] == (255, 255, 255)  # type: ignore[index]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    found = compare(scored_runs(write_arms(tmp_path, {name: np.ones((1, 2)) for name in ("a", "b")})))
    (tmp_path / "there").write_text("mine")
    (tmp_path / "c.png").symlink_to(tmp_path / "there")
    draw(found, tmp_path / "c.png")
    assert (tmp_path / "there").read_text() == "mine"
    (tmp_path / "folder").write_text("")
    with pytest.raises(UserError, match="a file stands where a folder is needed"):
        draw(found, tmp_path / "folder" / "c.png")
