"""Scores of a run of images after its training: those that the training gave, of each average, by command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from policy_accel.cli import main
from policy_accel.images.config import ImageConfig
from policy_accel.images.track import IMAGES
from policy_accel.run_files import read_metrics
from policy_accel.training.checkpoint import evaluation_of

Build = Callable[..., ImageConfig]


def test_a_checkpoint_scores_as_it_did_in_training(tiny_images: Build) -> None:
    """What `evaluation.overlap=true` runs in its process gives what the training gave, in both forms."""
    config = tiny_images("training.evaluate_every=2", "evaluation.curve_samples=16")
    IMAGES.train(config)
    score = IMAGES.scorer(config, torch.device("cpu"))
    for step in (2, 4):
        recorded = evaluation_of(Path(config.run_dir) / "checkpoints" / f"{step:08d}")
        again = score(step, print)
        assert recorded is not None
        assert again is not None
        assert {**again, "seconds": 0} == {**recorded, "seconds": 0}


def test_evaluate_compares_the_averages(tiny_images: Build, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_images("training.ema.lengths=[0.1]", "evaluation.samples=0")
    IMAGES.train(config)
    assert main(["evaluate", config.run_dir, "--samples", "20", "--average", "all", "--seed", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["averages"]) == {"ema", "ema_0.1"}
    assert result["score"] == max(result["averages"].values())
    assert (result["images"], result["seed"]) == (20, 3)
    assert json.loads((Path(config.run_dir) / "evaluation.json").read_text())["average"] == result["average"]
    asked = ["--samples", "20", "--guide-average", "ema_0.1", "--guidance", "3", "--guidance-interval", "0.1,9"]
    assert main(["evaluate", config.run_dir, *asked, "--seed", "3", "--json"]) == 0
    guided = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert guided["guide"] == {"run": config.run_dir, "step": 4, "average": "ema_0.1", "evaluations": 1}
    assert (guided["network_evaluations"], guided["sampling_guidance_interval"]) == (3, [0.1, 9.0])
    assert guided["measures"]["fd_random_conv"]["value"] != result["measures"]["fd_random_conv"]["value"]


def test_the_same_evaluation_gives_the_same_numbers(tiny_images: Build, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_images("evaluation.samples=24")
    trained = IMAGES.train(config)
    main(["evaluate", config.run_dir, "--json"])
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert trained.evaluation is not None
    assert again["measures"] == trained.evaluation["measures"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--episodes", "3"], "--episodes is for robot policies, and"),
        (["--samples", "0"], "--samples 0 leaves nothing to score"),
        (["--average", "last"], "has no average 'last'"),
        (["--inception", "nowhere.pth"], "nowhere.pth"),
        (["--resnet", "nowhere.npz"], "nowhere.npz"),
        (["--checkpoint", "7"], "has no checkpoint '7'"),
    ],
)
def test_evaluate_names_mistakes(
    arguments: list[str], sentence: str, tiny_images: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_images("evaluation.samples=0", "training.steps=1", "training.validate_every=0")
    IMAGES.train(config)
    assert main(["evaluate", config.run_dir, *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_checkpoints_are_compared_by_scores_of_one_count(tiny_images: Build) -> None:
    config = tiny_images("training.evaluate_every=2", "evaluation.samples=40", "evaluation.curve_samples=16")
    IMAGES.train(config)
    scored = [row for row in read_metrics(Path(config.run_dir) / "metrics.jsonl") if "measures" in row]
    assert [(row["images"], row["score_images"]) for row in scored] == [(16, 16), (40, 16)]
