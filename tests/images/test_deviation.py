"""The deviation of the data that an image network is scaled for."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policy_accel.diffusion import SigmaProcess
from policy_accel.distill import student_config
from policy_accel.errors import UserError
from policy_accel.images import deviation
from policy_accel.images.config import ImageConfig
from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT

Build = Callable[..., ImageConfig]
EDM = [
    "diffusion.family=edm",
    "diffusion.target=edm",
    "sampling.sampler=heun",
    "sampling.clip_sample=null",
    "evaluation.grid=0",
]
SCALE, MEAN, DEVIATION = 0.5, 1.0, 3.0


@pytest.fixture
def latents(tmp_path: Path) -> list[str]:
    """Overrides for latents of a mean and a deviation of their own."""
    generator = np.random.default_rng(0)
    values = MEAN + DEVIATION * generator.standard_normal((60, 4, 8, 8))
    np.save(tmp_path / "latents.npy", values.astype(np.float32))
    own = [f"task.data={tmp_path / 'latents.npy'}", "task.conditional=false", f"task.latent_scale={SCALE}"]
    return [*own, "task.held_out=0.1", "evaluation.samples=4", "evaluation.curve_samples=4", *EDM]


def process_of(config: ImageConfig) -> SigmaProcess:
    process = IMAGES.load(Path(config.run_dir)).sampler.objective.process
    assert isinstance(process, SigmaProcess)
    return process


def test_null_is_measured_told_kept_and_restored(
    latents: list[str], tiny_images: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_images(*latents, "diffusion.sigma_data=null", "training.steps=2")
    assert IMAGES.train(config).finished
    assert "scaled for a deviation of 1.4" in capsys.readouterr().err
    state = json.loads(next(Path(config.run_dir).glob("checkpoints/*/state.json")).read_text())
    measured = state["task"]["sigma_data"]
    assert measured == pytest.approx(SCALE * DEVIATION, rel=0.03)
    assert process_of(config).sigma_data == measured

    def fail(*_: Any) -> float:
        raise AssertionError("measured again")

    monkeypatch.setattr(deviation, "measured_deviation", fail)
    longer = tiny_images(*latents, "diffusion.sigma_data=null", "training.steps=4")
    assert IMAGES.train(longer).finished
    assert process_of(longer).sigma_data == measured
    begun = tiny_images(
        *latents, "diffusion.sigma_data=null", f"init_from={config.run_dir}", f"run_dir={config.run_dir}-begun"
    )
    task = IMAGES.build(begun)
    assert task.objective.process.sigma_data == measured  # type: ignore[attr-defined]
    assert "as its weights are" in task.heading["values"]
    student = student_config(IMAGES, Path(config.run_dir), "last", 1, [])
    assert student.diffusion.sigma_data == measured


def test_what_scores_beside_the_training_knows_it(latents: list[str], tiny_images: Build) -> None:
    config = tiny_images(*latents, "diffusion.sigma_data=null", "training.steps=2")
    score = IMAGES.scorer(config, torch.device("cpu"))  # before there is a checkpoint
    IMAGES.train(config)
    again = score(2, print)
    assert again is not None
    kept = json.loads(next(Path(config.run_dir).glob("checkpoints/*/evaluation.json")).read_text())
    assert again["score"] == kept["score"]


def test_a_number_far_from_the_data_is_told_in_one_line(latents: list[str], tiny_images: Build) -> None:
    with pytest.warns(
        UserWarning, match=r"sigma_data=0.5, and the deviation of 54 training images is 1\.\d+; "
    ) as told:
        IMAGES.build(tiny_images(*latents))
    assert len([warning for warning in told if "sigma_data" in str(warning.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        IMAGES.build(tiny_images(*latents, "diffusion.sigma_data=1.4"))
        IMAGES.build(tiny_images(*latents, "acceleration.data_scale=0.333"))
        IMAGES.build(tiny_images(*latents, "diffusion.family=vp", "diffusion.target=epsilon"))


def test_null_where_it_cannot_be_measured_or_has_no_effect(tiny_images: Build) -> None:
    with pytest.raises(UserError, match="sigma_data=null is measured on the data that an image model is trained on"):
        ROBOT.check(ROBOT.config(["method=edm", "diffusion.sigma_data=null"]))
    with pytest.raises(UserError, match=r"sigma_data=null has no effect with diffusion.family=vp; leave it at 0\.5"):
        IMAGES.check(tiny_images(*EDM, "diffusion.family=vp", "diffusion.target=epsilon", "diffusion.sigma_data=null"))
