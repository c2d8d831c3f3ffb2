"""What an image model is scored on: the classes and the images that are asked of it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from policy_accel.cli import main
from policy_accel.errors import UserError
from policy_accel.images.config import ImageConfig
from policy_accel.images.scoring.evaluate import ImageEvaluator
from policy_accel.images.shapes import make_shapes, write_images_npz
from policy_accel.images.track import IMAGES
from policy_accel.run_files import read_metrics

Build = Callable[..., ImageConfig]
SHARES = (0.5, 0.0, 0.3, 0.0, 0.0, 0.2, 0.0, 0.0)


class Remember(nn.Module):
    """A network that predicts nought and keeps the conditions it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.conditions: list[Tensor | None] = []

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        self.conditions.append(condition)
        return torch.zeros_like(x)


@pytest.fixture
def lopsided(tmp_path: Path) -> Path:
    """80 training shapes of three classes, 40, 24 and 16 of them in a row, and 40 of another class held out."""
    labels = np.repeat(np.arange(8), [round(80 * share) for share in SHARES])
    path = tmp_path / "lopsided.npz"
    train = make_shapes(80, size=16, seed=0, labels=labels)
    write_images_npz(path, train, make_shapes(40, size=16, seed=1, labels=np.full(40, 1)))
    return path


def scored(tiny_images: Build, data: Path, tmp_path: Path, *overrides: str) -> tuple[Remember, dict[str, object]]:
    """The network that was scored on 60 images in batches of 16, and the result."""
    sizes = ["evaluation.samples=60", "evaluation.curve_samples=60", "evaluation.batch_size=16", "sampling.steps=1"]
    config = tiny_images(f"task.data={data}", "evaluation.grid=0", *sizes, *overrides)
    task = IMAGES.build(config, scored=True)
    network = Remember().eval()
    result = task.evaluate(network, print, step=4)
    assert result is not None
    return network, result


def test_classes_are_generated_as_often_as_they_are_trained_on(
    tiny_images: Build, lopsided: Path, tmp_path: Path
) -> None:
    network, _ = scored(tiny_images, lopsided, tmp_path)
    conditions = torch.cat([condition for condition in network.conditions if condition is not None])
    assert [len(condition) for condition in network.conditions if condition is not None] == [16, 16, 16, 12]
    assert torch.equal(conditions.sum(1), torch.ones(60))
    shares = conditions.mean(0)
    assert shares.tolist() == pytest.approx(SHARES, abs=0.2)
    assert [share > 0 for share in shares.tolist()] == [share > 0 for share in SHARES]


def test_every_evaluation_asks_for_the_same_classes_and_another_seed_for_others(
    tiny_images: Build, lopsided: Path, tmp_path: Path
) -> None:
    def classes(*overrides: str) -> Tensor:
        network, _ = scored(tiny_images, lopsided, tmp_path, *overrides)
        return torch.cat([condition for condition in network.conditions if condition is not None])

    first = classes()
    assert torch.equal(first, classes("evaluation.batch_size=60"))
    assert not torch.equal(first, classes("evaluation.seed=1"))


def test_an_unconditional_model_is_asked_for_no_class(tiny_images: Build, lopsided: Path, tmp_path: Path) -> None:
    network, result = scored(tiny_images, lopsided, tmp_path, "task.conditional=false")
    assert set(network.conditions) == {None}
    assert result["images"] == 60


def test_any_measures_are_taken_while_training_and_one_of_them_chooses_the_best(
    tiny_images: Build, tmp_path: Path
) -> None:
    chosen = ["evaluation.curve_measures=[precision,copies]", "evaluation.score_measure=coverage"]
    config = tiny_images("training.evaluate_every=1", "training.checkpoint.keep_best=1", *chosen)
    config.training.optimizer.lr = 0.03
    IMAGES.train(config)
    rows = {row["step"]: row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "measures" in row}
    assert list(rows) == [1, 2, 3, 4]
    for step, row in rows.items():
        assert row["score_from"] == "coverage"
        coverage = row["measures"]["coverage"]
        assert row["score"] == pytest.approx(min(1.0, coverage["value"] / coverage["floor"]))
        assert step == 4 or list(row["measures"]) == ["copies", "precision", "coverage"]
    assert {"fd_random_conv", "density"} <= set(rows[4]["measures"])
    best = max(rows, key=lambda step: (rows[step]["score"], step))
    assert IMAGES.load(tmp_path / "run", "best").step == best


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("evaluation.curve_measures=[copies,fid]", r"evaluation\.curve_measures: 'fid' needs the weights"),
        ("evaluation.score_measure=fidd", r"evaluation\.score_measure: 'fidd' is no measure of these images"),
        ("evaluation.samples=2", r"evaluation\.samples=2: .* at least 3"),
        ("evaluation.curve_samples=2", r"evaluation\.curve_samples=2: .* at least 3"),
    ],
)
def test_measures_that_cannot_be_taken_are_refused_before_the_training(
    setting: str, why: str, tiny_images: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POLICY_ACCEL_INCEPTION", raising=False)
    with pytest.raises(UserError, match=why):
        IMAGES.build(tiny_images("evaluation.score_measure=coverage", setting), scored=True)


@pytest.mark.parametrize("fills", ["before", "while images are made"])
def test_a_full_disk_leaves_the_result_printed(
    fills: str, tiny_images: Build, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_images("evaluation.samples=0", "training.steps=1", "training.validate_every=0")
    IMAGES.train(config)
    measure, made = ImageEvaluator.measure, []

    def fill(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def measured(self: ImageEvaluator, *arguments: Any, **options: Any) -> Any:
        made.append(measure(self, *arguments, **options))
        monkeypatch.setattr(os, "fsync", fill)
        return made[-1]

    monkeypatch.setattr(ImageEvaluator, "measure", measured)
    if fills == "before":
        monkeypatch.setattr(os, "fsync", fill)
    capsys.readouterr()
    assert main(["evaluate", config.run_dir, "--samples", "24", "--json"]) == 2
    said = capsys.readouterr()
    assert "the disk is full, cannot write it" in said.err.splitlines()[-1]
    assert ("the result is only printed" in said.err) == (fills == "before")
    assert json.loads(said.out.splitlines()[-1])["measures"] == made[0]["measures"]
