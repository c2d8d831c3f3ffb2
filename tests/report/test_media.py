from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.reported import write_film, write_lines, write_run, write_sweep

from policy_accel.report import media
from policy_accel.report.collect import collect
from policy_accel.report.facts import machine_table, runs_table, settings_table
from policy_accel.report.measures import measure_chart, measure_names, measures_table


def grid(path: Path, width: int = 20, height: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), dtype=np.uint8)).save(path)


def test_films_of_one_episode_stand_side_by_side(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", seeds=(1, 2))
    film = tmp_path / "film.mp4"
    write_film(film)
    for name, episodes in (("baseline-seed1", (100, 101)), ("kl-seed1", (101,)), ("kl-seed2", (101, 100))):
        for episode in episodes:
            (sweep / name / "videos").mkdir(exist_ok=True)
            (sweep / name / "videos" / f"{episode}.mp4").write_bytes(film.read_bytes())
    gallery = media.rollouts(collect([sweep]))
    assert [(group.title, [(m.arm, m.seed) for m in group.media]) for group in gallery.groups] == [
        ("Episode 101", [("baseline", "1"), ("kl", "1"), ("kl", "2")]),
        ("Episode 100", [("baseline", "1"), ("kl", "2")]),
    ]
    assert gallery.left_out == ""
    first = gallery.groups[0].media[0]
    assert first.label == "score 0.410"
    assert base64.b64decode(first.source.removeprefix("data:video/mp4;base64,")) == film.read_bytes()


def test_what_is_too_much_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files of the size of the budget: the first arm's first run comes first."""
    sweep = write_sweep(tmp_path / "sweep", seeds=(1, 2))
    for run in ("baseline-seed1", "baseline-seed2", "kl-seed1", "kl-seed2"):
        write_film(sweep / run / "videos" / "100.mp4")
    size = (sweep / "kl-seed1" / "videos" / "100.mp4").stat().st_size
    monkeypatch.setattr(media, "FILM_BYTES", 2 * size)
    gallery = media.rollouts(collect([sweep]))
    assert [(m.arm, m.seed) for m in gallery.groups[0].media] == [("baseline", "1"), ("kl", "1")]
    assert gallery.left_out == "2 films are left out, so that the file stays small."
    monkeypatch.setattr(media, "FILM_BYTES", 2 * size - 1)
    assert media.rollouts(collect([sweep])).left_out.startswith("3 films")


def test_links_and_other_files_are_left_out(tmp_path: Path, treasure: Path) -> None:
    run = write_run(tmp_path / "run")
    videos = run / "videos"
    videos.mkdir()
    treasure.write_bytes(b"avc1 secret")
    (videos / "1.mp4").symlink_to(treasure)
    (videos / "2.mp4").write_bytes(b"no film")
    (run / "samples").mkdir()
    (run / "samples" / "00000001.png").write_text("no picture")
    runs = collect([run])
    assert media.rollouts(runs) == media.Gallery([], "2 are left out because they are links or not H.264.")
    assert media.sample_grids(runs).groups == []


def test_grids_over_training_are_spread(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", track="images")
    for step in range(0, 1100, 100):
        grid(run / "samples" / f"{step:08d}.png")
    gallery = media.sample_grids(collect([run]))
    (group,) = gallery.groups
    assert [medium.label for medium in group.media] == [f"{step:,} updates" for step in (0, 200, 400, 600, 800, 1000)]
    assert {(medium.width, medium.height) for medium in group.media} == {(20, 10)}
    assert gallery.left_out == "5 grids of updates between these are left out."
    assert media.spread([1, 2, 3], 6) == [1, 2, 3]


def measured(step: int, value: float) -> dict[str, object]:
    return {"step": step, "score": 0.5, "measures": {"fid": {"value": value, "floor": 2.0, "better": "lower"}}}


def test_measures_of_images_stand_beside_their_floor(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"run{seed}", seed=seed, track="images") for seed in (1, 2)]
    for folder, values in zip(folders, ((30.0, 20.0), (50.0, 40.0)), strict=True):
        write_lines(folder / "metrics.jsonl", [measured(10, values[0]), measured(20, values[1]), {"measures": "none"}])
    runs = collect(folders)
    assert measure_names(runs) == ["fid"]
    chart = measure_chart(runs, "fid")
    assert chart is not None
    by_role = {trace["meta"]["role"]: trace for trace in chart.traces}
    assert (by_role["mean"]["x"], by_role["mean"]["y"]) == ([10, 20], [40.0, 30.0])
    assert (by_role["floor"]["x"], by_role["floor"]["y"]) == ([10, 20], [2.0, 2.0])
    assert "Lower is better. Dashed: held-out real images." in chart.caption
    (folders[0] / "evaluation.json").write_text('{"score": 0.5, "measures": {"fid": {"value": 20.5, "floor": 2.0}}}')
    assert [row.cells for row in measures_table(collect(folders)).rows] == [["baseline", "1", "20.500 (2)"]]


def test_settings_that_differ(tmp_path: Path) -> None:
    runs = collect([write_sweep(tmp_path / "sweep", seeds=(1, 2))])
    table = settings_table(runs)
    assert table.header == ["setting", "baseline", "kl"]
    rows = {row.cells[0]: list(row.cells[1:]) for row in table.rows}
    assert rows == {"method": ["baseline", "kl"], "acceleration.path.name": ["single", "shared"]}


def test_the_table_of_the_runs(tmp_path: Path) -> None:
    runs = collect([write_sweep(tmp_path / "sweep", seeds=(1,))])
    table = runs_table(runs)
    found = dict(zip(table.header, table.rows[1].cells, strict=True))
    assert found["score"] == "0.510 (0.410 to 0.610)"
    assert found["updates"] == "400 of 400"
    assert found["seconds"] == "200"
    assert found["loss"] == "0.00525"  # 2.1 / 400
    assert "action error" not in found
    made = ["EPYC", "2.15.0", "0.1.0"]
    assert machine_table(runs).rows[0].cells == ["baseline", "1", *made, "2", "fp32", "highest", "abcdef"]


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        ('{"samplings": [{"own": false, "error": 0.5}, {"own": true, "error": 0.25}]}', "0.250"),
        ('{"samplings": 3}', "–"),
    ],
)
def test_the_table_has_the_errors_of_actions(record: str, shown: str, tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", seeds=(1,))
    (sweep / "kl-seed1" / "open_loop.json").write_text(record)
    (sweep / "baseline-seed1" / "open_loop.json").write_text('{"samplings": [{"own": true, "error": 1}]}')
    table = runs_table(collect([sweep]))
    errors = {row.arm: dict(zip(table.header, row.cells, strict=True))["action error"] for row in table.rows}
    assert errors == {"baseline": "1", "kl": shown}
