"""The pictures of the pages: each has a script, none is large."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Script = Callable[[str], ModuleType]
LARGEST = 150_000
LARGER = {"rollout.webp": 1_500_000}
PICTURES = (".svg", ".webp", ".png")


def test_every_picture_has_a_script_and_is_small(folder: Path) -> None:
    pictures = [path for path in folder.iterdir() if path.suffix in PICTURES]
    assert pictures
    for path in pictures:
        name = re.sub(r"_(light|dark)$", "", path.stem)
        assert (folder / f"{name}.py").is_file(), path.name
        assert path.stat().st_size <= LARGER.get(path.name, LARGEST), path.name
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < 4_000_000


def test_every_plot_has_both_schemes(script: Script, folder: Path) -> None:
    plots = {path.name for path in folder.glob("*.svg")}
    assert plots == {f"{name}_{scheme}.svg" for name in script("draw").FIGURES for scheme in ("light", "dark")}


def test_draw_refuses_a_figure_that_is_not_there(
    script: Script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["draw.py", "curve"])
    with pytest.raises(SystemExit, match="2"):
        script("draw").main()
    assert "there is no figure 'curve'; choose from score_over_time" in capsys.readouterr().err
