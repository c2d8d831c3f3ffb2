"""An image run from its settings to its samples: every method and network, resumed, loaded and begun from another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.runs import killed_at
from support.simulated_cuda import CUDA, SimulatedCuda
from support.tensors import same

from policy_accel.cli import main
from policy_accel.configuration import source_of
from policy_accel.errors import UserError
from policy_accel.images.config import ImageConfig
from policy_accel.images.shapes import make_shapes, write_images_npz
from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT
from policy_accel.run_files import read_metrics
from policy_accel.training.averages import averages
from policy_accel.training.checkpoint import load_checkpoint

from .conftest import TINY

Build = Callable[..., ImageConfig]
# Not for images, or told apart from the recipe only by it.
METHODS = [
    name
    for name in IMAGES.choices()["method"]
    if name not in ("baseline", "immiscible_residual", "immiscible_denoiser", "mip", "everything")
]
# One for each kind of noise, of times, of path and of process; the tests of the robots' policies resume every method.
RESUMED = ["edm", "flow", "immiscible_c2ot", "immiscible_classes", "immiscible_knn", "clts", "kl_fresh", "speed"]
NEEDS = {
    "immiscible_c2ot": ["acceleration.noise.condition_ratio=0.4", "task.augmentation=flip"],
    "immiscible_policy": ["acceleration.noise.start_score=null", "training.evaluate_every=0"],
}


def averaged(run_dir: str | Path, name: str = "ema") -> dict[str, torch.Tensor]:
    return load_file(Path(run_dir) / "checkpoints" / "00000004" / f"{name}.safetensors")


def interrupted(tiny_images: Build, *options: str) -> None:
    """Train to the end in two parts, the first killed after two updates."""
    parts = tiny_images(*options)
    parts.training.checkpoint.every = 2
    with killed_at(2) as crash:
        IMAGES.train(parts, after_update=crash)
    IMAGES.train(parts)


def options_of(method: str) -> list[str]:
    options = [
        "model=dit",
        "training/optimizer=muon" if method == "muon" else f"method={method}",
        "evaluation.samples=0",
        "training.validate_every=0",
        "task.augmentation=edm",
    ]
    return [*options, "task.label_dropout=0.2", "training.ema.lengths=[0.1]", *NEEDS.get(method, [])]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_images(method: str, tiny_images: Build, tmp_path: Path) -> None:
    IMAGES.train(tiny_images(*options_of(method), f"run_dir={tmp_path / 'run'}"))
    for name in ("ema", "ema_0.1"):
        assert all(bool(value.isfinite().all()) for value in averaged(tmp_path / "run", name).values())


@pytest.mark.parametrize("method", [*RESUMED, "muon"])
def test_images_resume_with_the_same_bits(method: str, tiny_images: Build, tmp_path: Path) -> None:
    IMAGES.train(tiny_images(*options_of(method), f"run_dir={tmp_path / 'whole'}"))
    interrupted(tiny_images, *options_of(method), f"run_dir={tmp_path / 'parts'}")
    for name in ("ema", "ema_0.1"):
        assert same(averaged(tmp_path / "whole", name), averaged(tmp_path / "parts", name))


@pytest.mark.parametrize("model", ["ddpm", "edm", "dit"])
def test_every_model_trains(model: str, tiny_images: Build) -> None:
    trained = IMAGES.train(tiny_images(f"model={model}", "evaluation.samples=0"))
    assert trained.finished


@pytest.mark.parametrize("method", ["flow", "edm"])
def test_objectives_other_than_ddpm_are_sampled(method: str, tiny_images: Build) -> None:
    trained = IMAGES.train(tiny_images(f"method={method}", "sampling.steps=2"))
    assert trained.evaluation is not None
    assert trained.evaluation["score"] >= 0


def test_a_run_leaves_what_a_robot_run_leaves(tiny_images: Build) -> None:
    config = tiny_images("training.evaluate_every=2", "evaluation.video=true", "training.ema.lengths=[0.05]")
    trained = IMAGES.train(config)
    run_dir = Path(config.run_dir)
    assert trained.finished
    assert {path.name for path in (run_dir / "samples").iterdir()} == {"00000002.png", "00000004.png", "forming.mp4"}
    grid = np.asarray(Image.open(run_dir / "samples" / "00000004.png"))
    assert grid.ndim == 3
    assert grid.std() > 0
    rows = read_metrics(run_dir / "metrics.jsonl")
    scored = [row for row in rows if "measures" in row]
    assert [row["step"] for row in scored] == [2, 4]
    assert set(scored[0]["measures"]) < set(scored[1]["measures"])
    for part in scored[1]["measures"].values():
        assert {"value", "floor"} <= set(part)
    losses = [row for row in rows if "loss" in row]
    assert losses[-1]["samples"] == 32
    assert losses[-1]["training_flops"] > 0
    assert [row["step"] for row in rows if "validation_loss" in row] == [2, 4]
    assert averages(run_dir) == ["ema", "ema_0.05"]


def test_a_resumed_run_scores_the_same(tiny_images: Build, tmp_path: Path) -> None:
    options = ["training.evaluate_every=2"]
    whole = IMAGES.train(tiny_images(*options, f"run_dir={tmp_path / 'whole'}")).evaluation
    interrupted(tiny_images, *options, f"run_dir={tmp_path / 'parts'}")
    parts = json.loads(next((tmp_path / "parts/checkpoints/00000004").glob("evaluation.json")).read_text())
    assert whole is not None
    assert whole["measures"] == parts["measures"]


def test_a_run_loads_without_its_data(tiny_images: Build, shapes: Path) -> None:
    config = tiny_images("evaluation.samples=0", "training.ema.lengths=[0.1]", "task.augmentation=edm")
    IMAGES.train(config)
    for average in ("ema", "ema_0.1"):
        run = IMAGES.load(Path(config.run_dir), average=average)
        expected = averaged(config.run_dir, average)
        assert same(expected, {key: value for key, value in run.model.state_dict().items() if key in expected})
        assert (run.shape, len(run.classes), run.condition_dim, run.step) == ((3, 16, 16), 8, 17, 4)
        assert not run.model.training
    with SimulatedCuda():
        weight = IMAGES.load(Path(config.run_dir), device=CUDA).model.input.weight
        assert weight.is_cuda
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert not weight.is_contiguous()
    with pytest.raises(UserError, match="has no average 'best' of the weights; it has ema, ema_0"):
        IMAGES.load(Path(config.run_dir), average="best")


def test_all_images_train_and_more_are_made_than_there_are(tiny_images: Build, tmp_path: Path) -> None:
    write_images_npz(tmp_path / "all.npz", make_shapes(20, size=16, seed=0), None)
    config = tiny_images(f"task.data={tmp_path / 'all.npz'}", "task.held_out=0")
    result = IMAGES.train(config).evaluation
    assert result is not None
    measures = result["measures"]
    assert (measures["fd_random_conv"]["samples"], measures["fd_random_conv"]["reference"]) == (24, 20)
    assert measures["copies"]["floor"] is None
    rows = read_metrics(Path(config.run_dir) / "metrics.jsonl")
    assert not any("validation_loss" in row for row in rows)
    assert "copies" in IMAGES.describe(result)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["method=mip"], "diffusion.family=mip regresses one sample on each condition"),
        (["sampling.guidance=2.0"], "sampling.guidance=2.0 needs a model that has seen the null class"),
        (["acceleration/noise=assignment", "acceleration.noise.center=ridge"], "for images choose none"),
        (["evaluation.samples=1"], "evaluation.samples=1 has no spread"),
        (["evaluation.batch_size=0"], "evaluation.batch_size=0 must be at least 1"),
        (["method=immiscible_policy", "training.evaluate_every=0"], "waits for an evaluation during training"),
        (["model.multipliers=[1,2,2,2,2,2]"], "model.multipliers"),
        (["model=edm2", "training.shard=true"], "model=edm2 brings its weights back to unit length"),
    ],
)
def test_training_names_mistakes(overrides: list[str], sentence: str, tiny_images: Build) -> None:
    config = tiny_images(*overrides)
    with pytest.raises(UserError, match=sentence):
        IMAGES.train(config)
    assert not Path(config.run_dir).exists()


def test_tracks_are_told_apart() -> None:
    assert source_of(["seed=1"]).track == "robot"
    assert source_of(["task=cifar10"]).track == "images"
    assert source_of(["recipe=small", "task=pusht_state"]).track == "robot"
    with pytest.raises(UserError, match="recipe=small is for robot policies and task=mnist is for images"):
        source_of(["recipe=small", "task=mnist"])
    with pytest.raises(UserError, match=r"task=cifar is unknown; did you mean 'cifar10'\?"):
        source_of(["task=cifar"])
    for group in ("task", "recipe", "model"):
        assert not set(ROBOT.choices()[group]) & set(IMAGES.choices()[group])


def test_a_robot_run_makes_no_images(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("track: robot\n")
    with pytest.raises(UserError, match="is a run of robot policies; give one of images"):
        IMAGES.load(tmp_path)
    (tmp_path / "config.yaml").write_text("model: {name: ddpm}\n")
    with pytest.raises(UserError, match="names no track: it is of an earlier version; train the run again"):
        IMAGES.load(tmp_path)


def test_an_average_of_another_length_is_made_from_the_checkpoints(tiny_images: Build) -> None:
    config = tiny_images(
        "training.ema.lengths=[0.05,0.1,0.2]",
        "training.steps=12",
        "training.checkpoint.every=1",
        "training.checkpoint.keep_every=1",
        "evaluation.samples=0",
        "training.validate_every=0",
    )
    IMAGES.train(config)
    between = IMAGES.load(Path(config.run_dir), average="ema_0.15").model.state_dict()
    stored = [IMAGES.load(Path(config.run_dir), average=f"ema_{x}").model.state_dict() for x in (0.1, 0.2)]
    name = "input.weight"
    assert not torch.equal(between[name], stored[0][name])
    apart = (stored[0][name] - stored[1][name]).norm()
    assert max((between[name] - part[name]).norm() for part in stored) < apart


def test_a_model_of_the_other_track_says_so() -> None:
    with pytest.raises(UserError, match="model=unet_small is for robot policies; choose a task of theirs"):
        IMAGES.config(["task=shapes", "model=unet_small"])


def test_the_command_line_trains_samples_and_says_where_everything_is(
    tiny_images: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str], shapes: Path
) -> None:
    run_dir = tmp_path / "demo"
    settings = [
        f"task.data={shapes}",
        *TINY["ddpm"],
        "training.steps=4",
        "training.batch_size=4",
        "training.evaluate_every=2",
        "training.optimizer.warmup_steps=1",
        "training.checkpoint.every=2",
        "sampling.steps=2",
        "evaluation.samples=24",
        "evaluation.curve_samples=16",
        "evaluation.grid=4",
        f"run_dir={run_dir}",
    ]
    for _ in range(2):  # the second call finds the run finished
        assert main(["demo", "images", *settings]) == 0
        printed = capsys.readouterr().out
        for name in ("fd_random_conv", "coverage", "copies", "learning_curve.png", "samples", "evaluation.json"):
            assert name in printed
    for name in ("learning_curve.png", "evaluation.json", "samples/forming.mp4", "samples/00000002.png"):
        assert (run_dir / name).is_file()
    assert main(["sample", str(run_dir), "--count", "3", "--labels", "star", "--output", str(tmp_path / "stars")]) == 0
    assert (tmp_path / "stars" / "grid.png").is_file()


def test_there_is_no_other_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "image"]) == 2
    assert "there is no demo 'image'; did you mean 'images'?" in capsys.readouterr().err


def test_a_run_begins_with_the_averaged_weights_of_another(tiny_images: Build, tmp_path: Path) -> None:
    first = tiny_images("evaluation.curve_samples=0", "evaluation.samples=0", f"run_dir={tmp_path / 'first'}")
    IMAGES.train(first)
    task = IMAGES.build(tiny_images(f"init_from={tmp_path / 'first'}"))
    source = load_checkpoint(tmp_path / "first" / "checkpoints" / "last").tensors["ema"]
    assert all(torch.equal(value, source[key]) for key, value in task.model.state_dict().items())
    assert task.heading["begins"].endswith("after 4 updates")
    with pytest.raises(
        UserError, match=r"does not fit this network \(.* there and .* Set as there: model.channels=\d+$"
    ):
        IMAGES.build(tiny_images(f"init_from={tmp_path / 'first'}", "model.channels=32"))
