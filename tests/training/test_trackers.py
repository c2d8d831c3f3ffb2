"""What TensorBoard and Weights & Biases are given, read back with their own packages."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.reported import write_film
from support.runs import killed_at
from support.sweeps import wait_for
from tensorboard.backend.event_processing.event_accumulator import IMAGES, SCALARS, EventAccumulator
from torch import nn

from policy_accel.errors import UserError
from policy_accel.run_files import read_metrics
from policy_accel.training import Trained, TrainingConfig
from policy_accel.training.tensorboard import Tensorboard, gif_of
from policy_accel.training.trackers import NewMedia, numbers

Run = Callable[..., Trained]


def events(run_dir: Path) -> EventAccumulator:
    """All that TensorBoard shows of the run."""
    read = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={SCALARS: 0, IMAGES: 0})
    read.Reload()
    return read


def scalars(run_dir: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, pytest.approx(event.value)) for event in events(run_dir).Scalars(name)]


def logged(run_dir: Path, name: str) -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in read_metrics(run_dir / "metrics.jsonl") if name in row]


class Pictures:
    """A score that leaves a grid and a film, as the tracks do."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.calls = run_dir, 0

    def __call__(self, model: nn.Module) -> dict[str, Any]:
        self.calls += 1
        folder = self.run_dir / "samples"
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.full((6, 8, 3), 10 * self.calls, np.uint8)).save(folder / f"{self.calls:08d}.png")
        write_film(self.run_dir / "videos" / "7.mp4")
        return {"score": 0.5, "measures": {"fid": {"value": 2.0 * self.calls, "features": "x"}}, "flag": True}


@pytest.fixture
def config(config: TrainingConfig) -> TrainingConfig:
    config.evaluate_every = 6
    return config


def test_tensorboard_has_the_rows_the_grids_and_the_films(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    config.logging.tensorboard = True
    run_dir = tmp_path / "run"
    run(toy_task(Pictures(run_dir)), config)
    for name in ("loss", "validation_loss", "lr", "score"):
        assert scalars(run_dir, name) == logged(run_dir, name)
    assert scalars(run_dir, "measures/fid/value") == [(6, 2.0), (12, 4.0)]
    read = events(run_dir)
    levels = [tag for tag in read.Tags()["scalars"] if tag.startswith("noise_levels/loss/")]
    assert len(levels) == 16
    assert [event.step for event in read.Scalars(levels[0])] == [6, 12]
    assert not {"step", "flag", "measures/fid/features"} & set(read.Tags()["scalars"])
    assert set(read.Tags()["images"]) == {"samples", "videos/7"}
    grids = read.Images("samples")
    assert [(event.step, event.width, event.height) for event in grids] == [(6, 8, 6), (12, 8, 6)]
    for number, event in enumerate(grids, 1):
        assert event.encoded_image_string == (run_dir / "samples" / f"{number:08d}.png").read_bytes()
    films = read.Images("videos/7")
    assert [event.step for event in films] == [6, 12]
    with Image.open(io.BytesIO(films[0].encoded_image_string)) as film:
        assert (film.format, film.size, film.n_frames) == ("GIF", (32, 32), 12)


def test_a_resumed_run_is_in_tensorboard_once(toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path) -> None:
    """Killed after update 9; the last checkpoint is that of 6, so that rows of 8 are made twice and shown once."""
    config.logging.tensorboard = True
    run_dir, score = tmp_path / "run", Pictures(tmp_path / "run")

    with killed_at(9) as crash:
        run(toy_task(score), config, after_update=crash)
    before = [step for step, _ in scalars(run_dir, "loss")]
    assert before[-1] > 6
    run(toy_task(score), config)
    assert len(list((run_dir / "tensorboard").iterdir())) == 2
    for name in ("loss", "validation_loss", "score"):
        assert scalars(run_dir, name) == logged(run_dir, name)
    assert [event.step for event in events(run_dir).Images("samples")] == [6, 12]


def test_a_late_row_is_in_tensorboard_at_its_own_step(tmp_path: Path) -> None:
    """A score that came after the loss of later updates."""
    tracker = Tensorboard(tmp_path, 0)
    tracker.row({"step": 9, "loss": 1.0}, 9)
    tracker.row({"step": 3, "score": 0.5}, 9)
    tracker.close()
    assert scalars(tmp_path, "score") == [(3, 0.5)]


def test_wandb_has_grids_films_and_the_report(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline: the files lie in the run directory, with nothing of them anywhere else."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config.logging.wandb = "offline"
    run_dir = tmp_path / "run"

    def page(trained: Trained) -> Path:
        assert (trained.finished, trained.evaluation) == (True, {**(trained.evaluation or {}), "score": 0.5})
        (run_dir / "report.html").write_text("the report")
        return run_dir / "report.html"

    run(toy_task(Pictures(run_dir)), config, page=page)
    (folder,) = (run_dir / "wandb").glob("offline-run-*")
    media = [path for path in (folder / "files" / "media").rglob("*") if path.is_file()]
    assert sorted(path.suffix for path in media) == [".mp4", ".mp4", ".png", ".png"]
    pictures = {path.read_bytes() for path in media if path.suffix == ".png"}
    assert pictures == {path.read_bytes() for path in (run_dir / "samples").glob("*.png")}
    wait_for(lambda: any(record.WhichOneof("record_type") == "exit" for record in records(folder)))
    artefacts = {}
    for record in records(folder):
        if record.WhichOneof("record_type") == "artifact":
            entries = record.artifact.manifest.contents
            artefacts[record.artifact.name] = (record.artifact.type, sorted(entry.path for entry in entries))
    assert artefacts == {
        "run-report": ("report", ["report.html"]),
        "run-media": ("media", ["samples/00000001.png", "samples/00000002.png", "videos/7.mp4"]),
    }
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file() and path.suffix in (".png", ".html")]


def records(folder: Path) -> list[Any]:
    """What Weights & Biases wrote: records of its own kind in a log of LevelDB's form, in blocks of 32 KiB.

    A part has its CRC (4 bytes), its length (2), whether it is a whole record (1) or its first, middle or last part (2,
    3, 4), and its bytes; the file begins with 7 bytes of its own.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("*.wandb")
    content, place, found, parts = path.read_bytes(), 7, [], b""
    while place + 7 <= len(content):
        if 2**15 - place % 2**15 < 7:
            place += 2**15 - place % 2**15
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def test_no_report_is_made_where_nobody_takes_it(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    run(toy_task(), config, page=lambda trained: pytest.fail("it was made"))


def test_tensorboard_that_is_not_installed(
    toy_task: Any, config: TrainingConfig, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.logging.tensorboard = True
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match=r"training\.logging\.tensorboard=true needs the package tensorboard"):
        run(toy_task(), config)


def test_new_media_are_those_that_came_since_the_last_look(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    film = tmp_path / "videos" / "1.mp4"
    film.touch()
    media = NewMedia(tmp_path)
    assert media.look() == {}
    (tmp_path / "videos" / "2.mp4").touch()
    assert set(media.look()) == {"videos/2"}
    film.write_text("anew")
    assert set(media.look()) == {"videos/1"}


def test_numbers_of_a_row() -> None:
    row = {"a": 1, "b": {"c": 2.5, "d": {"e": 3}}, "text": "x", "yes": True, "list": [1]}
    assert numbers(row) == {"a": 1.0, "b/c": 2.5, "b/d/e": 3.0}


def test_a_long_wide_film_becomes_a_small_gif(tmp_path: Path) -> None:
    from policy_accel.evaluation.video import VideoWriter

    writer = VideoWriter(tmp_path / "film.mp4", 10)
    for _ in range(100):
        writer.add(np.zeros((64, 512, 3), np.uint8) + np.arange(512, dtype=np.uint8)[:, None])
    writer.finish()
    with Image.open(io.BytesIO(gif_of(tmp_path / "film.mp4"))) as film:
        assert film.size == (256, 32)
        assert film.info["duration"] * 34 == pytest.approx(6000, rel=0.05)
