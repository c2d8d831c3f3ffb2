"""Runs of several processes: one directory, one log, one stop, and any number of processes in the next part."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.methods import DIT, IMAGES_COMMON
from support.rank_checks import STEPS, check_equal, config_of, rows
from support.rank_work import drawn_images, error_of, run, scored_images
from support.two_ranks import TwoRanks

from policy_accel.images.track import IMAGES
from policy_accel.training.ranks import ALONE


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "alone"
    assert run(ALONE, config_of(run_dir))["finished"]
    return run_dir


def test_a_run_of_two_is_the_run_of_one(two: TwoRanks, alone: Path, tmp_path: Path) -> None:
    assert two(run, config_of(tmp_path / "run")) == [{"step": STEPS, "finished": True, "evaluation": None}] * 2
    check_equal(tmp_path / "run", alone)
    assert [row["step"] for row in rows(tmp_path / "run")] == [row["step"] for row in rows(alone)]


@pytest.mark.parametrize("signalled", [0, 1])
def test_a_signal_to_one_stops_both_at_the_next_log_point_and_others_go_on(
    two: TwoRanks, alone: Path, tmp_path: Path, signalled: int
) -> None:
    run_dir = tmp_path / "run"
    stopped = two(run, config_of(run_dir), (signalled, 3))
    assert [part["step"] for part in stopped] == [4, 4]
    assert not any(part["finished"] for part in stopped)
    assert run(ALONE, config_of(run_dir, "training.accumulate=2"), (0, 7)) == {
        "step": 7,
        "finished": False,
        "evaluation": None,
    }
    assert all(part["finished"] for part in two(run, config_of(run_dir)))
    check_equal(run_dir, alone)


def test_dropout_goes_on_as_it_would_have(two: TwoRanks, tmp_path: Path) -> None:
    network = ["model=transformer", "model.layers=1", "model.embedding_dim=16", "model.heads=2"]
    dropout = [*network, "model.attention_dropout=0.3"]
    configs = {name: config_of(tmp_path / name, *dropout, network=[]) for name in ("whole", "parts")}
    two(run, configs["whole"])
    two(run, configs["parts"], (1, 5))
    two(run, configs["parts"])
    found, expected = (
        load_file(tmp_path / name / "checkpoints" / f"{STEPS:08d}" / "model.safetensors") for name in ("parts", "whole")
    )
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_a_batch_that_cannot_be_shared(two: TwoRanks, tmp_path: Path) -> None:
    sentence = (
        "training.batch_size=9 does not divide into 2 equal parts (2 processes times training.accumulate=1); choose a "
        "multiple of 2."
    )
    assert two(error_of, config_of(tmp_path / "run", "training.batch_size=9")) == [sentence] * 2
    assert not (tmp_path / "run").exists()


def test_what_the_first_cannot_write_is_said_by_both(two: TwoRanks, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file\n")
    first, second = two(error_of, config_of(tmp_path / "run"))
    assert "run" in first
    assert first == second != "nothing"
    assert (tmp_path / "run").read_text() == "a file\n"


def test_episodes_are_shared_and_their_results_stay(two: TwoRanks, tmp_path: Path) -> None:
    scored = ["evaluation.episodes=3", "evaluation.workers=0", "evaluation.videos=2", "task.max_steps=16"]
    expected = run(ALONE, config_of(tmp_path / "alone", *scored))["evaluation"]
    first, second = (part["evaluation"] for part in two(run, config_of(tmp_path / "run", *scored)))
    assert first == second
    assert [row["seed"] for row in first["episodes"]] == [100000, 100001, 100002]
    for found, row in zip(first["episodes"], expected["episodes"], strict=True):
        assert found == {**row, "score": pytest.approx(row["score"], rel=1e-3, abs=1e-6)}
    names = [sorted(path.name for path in (tmp_path / name / "videos").iterdir()) for name in ("alone", "run")]
    assert names[0] == names[1] == ["100000.mp4", "100001.mp4"]


def test_images_are_shared_and_stay_as_they_are(two: TwoRanks, tmp_path: Path) -> None:
    settings = ["evaluation.samples=6", "evaluation.batch_size=2", "sampling.steps=2", f"run_dir={tmp_path}"]
    config = IMAGES.config([*IMAGES_COMMON, *DIT, *settings])
    expected = drawn_images(ALONE, config)
    first, second = two(drawn_images, config)
    assert torch.equal(first, expected)
    assert len(second) == 0


def test_one_draws_the_grid_and_the_film_of_what_both_made(two: TwoRanks, tmp_path: Path) -> None:
    settings = ["evaluation.samples=6", "evaluation.curve_samples=0", "evaluation.grid=4", "evaluation.batch_size=4"]
    overrides = [*IMAGES_COMMON, *DIT, *settings, "sampling.steps=2"]
    expected = scored_images(ALONE, IMAGES.config([*overrides, f"run_dir={tmp_path / 'alone'}"]))
    first, second = two(scored_images, IMAGES.config([*overrides, f"run_dir={tmp_path / 'two'}"]))
    assert first == second
    assert {**first, "seconds": 0} == {**(expected or {}), "seconds": 0}
    for name in ("alone", "two"):
        assert {path.name for path in (tmp_path / name / "samples").iterdir()} == {"00000020.png", "forming.mp4"}


def test_a_damaged_checkpoint_is_set_aside_once(two: TwoRanks, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    two(run, config_of(run_dir), (0, 7))
    newest = run_dir / "checkpoints" / "00000008"
    (newest / "model.safetensors").write_bytes(b"cut")
    assert all(part["finished"] for part in two(run, config_of(run_dir)))
    assert (newest.with_name("00000008.damaged") / "model.safetensors").read_bytes() == b"cut"


def test_other_data_on_one_machine(two: TwoRanks, tmp_path: Path) -> None:
    sentence = "the processes of this run read different data; give all machines the same files."
    assert two(error_of, config_of(tmp_path / "run"), 1) == [sentence] * 2
