"""The pictures of trained runs: each belongs to its record."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

Script = Callable[[str], ModuleType]


def record(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text())


def test_pictures_of_runs_have_the_record_that_was_written_with_them(folder: Path) -> None:
    pictures = sorted(folder.glob("*.webp"))
    assert pictures
    for path in pictures:
        found = record(folder, path.stem)
        assert found["sha256"] == sha256(path.read_bytes()).hexdigest(), path.name
        assert found["command"].startswith(f"python docs/figures/{path.stem}.py")
        assert {"commit", "date", "hardware", "run"} <= set(found)
        assert list(Image.open(path).size) == found["size"]


def test_rollout_shows_the_first_starts_of_the_evaluation(folder: Path) -> None:
    found = record(folder, "rollout")
    film = Image.open(folder / "rollout.webp")
    assert film.n_frames == found["frames"]
    assert film.info["loop"] == 0
    assert 10 <= found["seconds"] <= 20
    assert found["seeds"] == list(range(100_000, 100_006))
    # The policy acts for one start here and for all at once there: rounding differs.
    np.testing.assert_allclose(found["scores"], found["evaluated_scores"], atol=0.02)
    assert found["successes"] == [score == 1.0 for score in found["scores"]]


def test_rollout_tiles_hold_the_last_frame_of_an_episode_that_is_over(script: Script) -> None:
    rollout = script("rollout")

    def tile(grey: int) -> Image.Image:
        return Image.new("RGB", (rollout.TILE, rollout.TILE), (grey, grey, grey))

    short = rollout.Episode([tile(100)], [1.0], 2, True)
    long = rollout.Episode([tile(150), tile(200)], [0.0, 0.5], 4, False)
    first, last = rollout.pictures([short, long])
    corner, beside = (rollout.TILE - 1, rollout.TILE - 1), (2 * rollout.TILE + rollout.GAP - 1, rollout.TILE - 1)
    assert [first.getpixel(corner)[0], last.getpixel(corner)[0]] == [100, 100]
    assert [first.getpixel(beside)[0], last.getpixel(beside)[0]] == [150, 200]
    assert first.getpixel((rollout.TILE + 1, 0))[3] == 0  # between tiles the page shows


def test_denoising_draws_its_record(script: Script, folder: Path) -> None:
    module, found = script("denoising"), record(folder, "denoising")
    chunks = np.array(found["trajectories"])
    assert chunks.shape == (found["run"]["sampling_steps"] + 1, module.DRAWS, 16, 2)
    assert found["sigmas"][0] == pytest.approx(1.0, abs=1e-3)
    assert found["sigmas"][-1] == 0.0
    figure = module.draw(script("style").SCHEMES["light"])
    for axes, state in zip(figure.axes, module.PANELS, strict=True):
        drawn = [np.array(line.get_xydata()) for line in axes.lines if len(line.get_xydata()) == 16]
        assert any(np.array_equal(line, chunks[state, 0]) for line in drawn)
        assert len(drawn) == module.DRAWS
    spread = chunks.std(axis=1).mean(axis=(1, 2))
    assert spread[-1] < 0.2 * spread[0]  # from noise all over the scene to paths that agree


def test_a_grid_of_images_keeps_their_pixels(script: Script) -> None:
    module = script("image_grid")
    above, below = np.random.default_rng(0).integers(0, 256, (2, 2, 3, 4, 5, 3), dtype=np.uint8)
    canvas = module.composed(above, below)
    high, wide = module.SCALE * 4 + module.GAP, module.SCALE * 5 + module.GAP
    assert canvas[high, 2 * wide, :3].tolist() == above[1, 2, 0, 0].tolist()
    lower = 2 * high - module.GAP + module.BETWEEN
    assert canvas[lower + module.SCALE, wide, :3].tolist() == below[0, 1, 1, 0].tolist()
    assert canvas[lower - 1, 0, 3] == 0
    assert set(np.unique(canvas[..., 3])) == {0, 255}
