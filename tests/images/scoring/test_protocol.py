from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from policy_accel.cli import main
from policy_accel.images.config import ImageConfig
from policy_accel.images.metrics.table import table
from policy_accel.images.scoring.evaluate import ImageEvaluator
from policy_accel.images.scoring.protocol import PROTOCOLS, of_draws
from policy_accel.images.sets import load_split
from policy_accel.images.track import IMAGES

Build = Callable[..., ImageConfig]


def test_of_three_draws_the_lowest_distance_counts_and_of_other_measures_the_mean() -> None:
    draws = [{"fid": {"value": fid, "floor": 1.0}, "recall": {"value": fid / 10}} for fid in (3.0, 2.0, 7.0)]
    found = of_draws(draws)
    drawn = {"draws": [3.0, 2.0, 7.0], "counts": "lowest", "mean": 4.0, "range": [2.0, 7.0]}
    assert found["fid"] == {"value": 2.0, "floor": 1.0, **drawn}
    assert (found["recall"]["value"], found["recall"]["range"]) == (pytest.approx(0.4), pytest.approx([0.2, 0.7]))
    assert of_draws(draws[:1]) == draws[0]


def test_a_mean_of_equal_draws_is_called_a_mean() -> None:
    draw = {"copies": {"value": 0.0, "floor": None, "better": "lower", "samples": 20}}
    assert "(mean of 3 draws: mean 0, 0 to 0)" in table(of_draws([draw] * 3))


def test_the_draws_of_edm_follow_one_another() -> None:
    """Seeds 0 to 49,999, 50,000 to 99,999 and 100,000 to 149,999 of its README."""
    assert PROTOCOLS["edm"].numbers(50_000) == [range(50_000), range(50_000, 100_000), range(100_000, 150_000)]
    assert PROTOCOLS["plain"].numbers(7) == [range(7)]


def test_classes_are_those_of_the_protocol_and_follow_from_the_number(tiny_images: Build, tmp_path: Path) -> None:
    config = tiny_images("task.limit=12", "evaluation.protocol=edm")
    split = load_split(config.task)
    assert split.train.labels is not None
    labels = ImageEvaluator(config, split, tmp_path).labels(range(4000))
    assert labels is not None
    shares = [float((labels == label).float().mean()) for label in sorted(set(split.train.labels.tolist()))]
    assert shares == pytest.approx([1 / len(shares)] * len(shares), abs=0.03)
    part = ImageEvaluator(config, split, tmp_path).labels(range(700, 900))
    assert part is not None
    assert part.tolist() == labels[700:900].tolist()


def test_evaluate_says_and_stores_the_protocol(tiny_images: Build, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_images("evaluation.samples=0", "evaluation.curve_samples=8")
    IMAGES.train(config)
    capsys.readouterr()
    assert main(["evaluate", config.run_dir, "--protocol", "edm", "--samples", "20", "--mirrored-reference"]) == 0
    said = capsys.readouterr().out
    assert "3 draws of 20 images (0 to 19, 20 to 39, 40 to 59 of seed 0); classes equally often" in said
    assert "against all 48 training images and their mirror images; of Fréchet distances the lowest draw" in said
    assert "published numbers have 50,000 images a draw" in said
    result = json.loads((Path(config.run_dir) / "evaluation.json").read_text())
    assert result["protocol"]["name"] == "edm"
    assert result["protocol"]["says"] in said
    distance = result["measures"]["fd_random_conv"]
    assert distance["value"] == min(distance["draws"])
    assert len({*distance["draws"]}) == 3
    assert f"lowest of 3 draws: mean {distance['mean']:.5g}" in said
    assert main(["evaluate", config.run_dir, "--samples", "20"]) == 0
    assert (
        "protocol plain: one draw of 20 images (0 to 19 of seed 0); classes as often as in training; against all 48"
        in (capsys.readouterr().out)
    )
