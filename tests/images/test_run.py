from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
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
from policy_accel.training.checkpoint import evaluation_of, load_checkpoint

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

    def crash(step: int) -> None:
        if step == 2:
            raise RuntimeError("killed")

    parts = tiny_images(*options)
    parts.training.checkpoint.every = 2
    with pytest.raises(RuntimeError, match="killed"):
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


def expected(**settings: Any) -> dict[str, Any]:
    return settings


RECIPES = {
    "ddpm_cifar10": expected(
        family="ddpm", target="epsilon", batch=128, lr=2e-4, steps=800_000, model="ddpm", sampler=("ddpm", 1000)
    ),
    "edm_cifar10": expected(
        family="edm", target="edm", batch=512, lr=1e-3, steps=390_625, model="edm", sampler=("heun", 18)
    ),
    "edm_ffhq64": expected(
        family="edm",
        batch=256,
        lr=2e-4,
        steps=781_250,
        warmup=39_063,
        model="edm",
        multipliers=[1, 2, 2, 2],
        dropout=0.05,
        augmentation=("edm", 0.15),
        conditional=False,
        sampler=("heun", 40),
        half_life=500_000,
        churn=0.0,
        held_out=0.0,
    ),
    "edm_afhqv2": expected(
        batch=256, lr=2e-4, multipliers=[1, 2, 2, 2], dropout=0.25, augmentation=("edm", 0.15), sampler=("heun", 40)
    ),
    "edm_imagenet64": expected(
        batch=4096,
        lr=1e-4,
        steps=610_352,
        warmup=2441,
        model="adm",
        dropout=0.1,
        augmentation=("none", 0.12),
        conditional=True,
        sampler=("heun", 256),
        half_life=50_000_000,
        churn=40.0,
        held_out=0.0,
        precision="fp16",
    ),
    "fdm_edm_ffhq64": expected(cap=800, scale="released", multiplier=1.0, dropout=0.05, sampler=("heun", 40)),
    "fdm_edm_afhqv2": expected(cap=400, scale="released", multiplier=2.0, dropout=0.25, sampler=("heun", 40)),
    "dit_imagenet256": expected(
        family="ddpm",
        target="epsilon",
        batch=256,
        lr=1e-4,
        warmup=0,
        model="dit",
        sampler=("ddpm", 250),
        conditional=True,
    ),
    "fdm_edm_cifar10": expected(family="edm", target="edm", cap=200, scale="released", multiplier=2.0, model="edm"),
    "fdm_vp_cifar10": expected(family="vp", target="epsilon", cap=400, scale="released", multiplier=2.0),
    "fdm_ve_cifar10": expected(family="ve", target="negative_epsilon", cap=400, scale="released", multiplier=1.0),
    "immiscible_ddim_cifar10": expected(choice="assignment", batch=256, sampler=("ddim", 100), family="ddpm"),
    "immiscible_fm_cifar10": expected(
        choice="nearest", candidates=4, family="flow", target="flow", batch=256, sampler=("euler", 50)
    ),
    "clts_cifar10": expected(timesteps="curriculum", decay="demon", batch=128, family="ddpm"),
    "kl_ddim_cifar10": expected(times=4, batch=32, family="ddpm", sampler=("ddim", 100)),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_those_of_the_papers(name: str) -> None:
    config = IMAGES.config([f"recipe={name}", "task.data=x"])
    acceleration, training = config.acceleration, config.training
    found = {
        "family": config.diffusion.family,
        "target": config.diffusion.target,
        "reduction": config.diffusion.loss_reduction,
        "batch": training.batch_size,
        "lr": training.optimizer.lr,
        "steps": training.steps,
        "model": config.model.name,
        "sampler": (config.sampling.sampler, config.sampling.steps),
        "warmup": training.optimizer.warmup_steps,
        "half_life": training.ema.half_life,
        "precision": training.precision,
        "multipliers": getattr(config.model, "multipliers", None),
        "dropout": getattr(config.model, "dropout", None),
        "augmentation": (config.task.augmentation, config.task.augmentation_probability),
        "conditional": config.task.conditional,
        "held_out": config.task.held_out,
        "churn": config.sampling.churn,
        "cap": acceleration.momentum.cap_warmup,
        "scale": acceleration.momentum.name,
        "multiplier": getattr(acceleration.momentum, "multiplier", None),
        "choice": acceleration.noise.name,
        "candidates": getattr(acceleration.noise, "candidates", None),
        "timesteps": acceleration.timesteps.name,
        "decay": training.optimizer.momentum_decay.name,
        "times": acceleration.path.repetition().times_per_sample,
    }
    assert {key: found[key] for key in RECIPES[name]} == RECIPES[name]
    assert found["reduction"] == ("sum" if name.startswith(("edm", "fdm")) else "mean")
    published = not name.startswith(("ddpm", "edm", "dit"))
    assert config.method == ("published" if published else "baseline")


@pytest.mark.parametrize("name", IMAGES.choices()["recipe"])
def test_every_recipe_can_be_built_and_run_small(name: str, tiny_images: Build, shapes: Path) -> None:
    """The recipe's objective, optimiser and sampler with a tiny net on shapes."""
    from .conftest import TINY

    model = IMAGES.config([f"recipe={name}", "task.data=x"]).model.name
    config = IMAGES.config(
        [
            f"recipe={name}",
            f"task.data={shapes}",
            *TINY[model],
            "training.steps=2",
            "training.batch_size=4",
            "training.device=cpu",
            "task.resolution=null",  # as small as they are
            "training.precision=fp32",  # fp16 is slow here
            "training.evaluate_every=0",
            "training.validate_every=0",
            "training.optimizer.warmup_steps=1",
            "sampling.steps=2",
            "evaluation.samples=0",
            "evaluation.curve_samples=0",
            "evaluation.grid=2",
            "evaluation.video=false",
            f"run_dir={tiny_images().run_dir}",
        ]
    )
    assert IMAGES.train(config).finished


def told(*overrides: str) -> list[str]:
    said: list[str] = []
    IMAGES.config([*overrides, "task.data=x"], report=said.append)
    return said


def test_a_recipe_of_one_set_says_what_it_takes_to_another(tmp_path: Path) -> None:
    (said,) = told("recipe=edm_cifar10", "task=ffhq64")
    assert said.startswith("recipe=edm_cifar10 is made for task=cifar10: its network, dropout, ")
    assert said.endswith("are taken to task=ffhq64 as they are; recipes of ffhq64: edm_ffhq64, fdm_edm_ffhq64.")
    (said,) = told("recipe=edm_ffhq64", "task=celeba64")
    assert said.endswith("; no recipe that ships is of celeba64.")
    own = tmp_path / "own.yaml"
    own.write_text("track: images\ndefaults: [ddpm_cifar10]\n")
    assert told(f"recipe={own}", "task=custom_images")[0].startswith(f"recipe={own} is made for task=cifar10: ")
    for overrides in (["recipe=edm_cifar10"], ["recipe=edm_cifar10", "task=cifar10"], ["task=mnist"]):
        assert told(*overrides) == []
    assert told("recipe=images_small", "task=mnist") == []


def test_a_paper_s_recipe_has_a_baseline_of_its_own() -> None:
    with pytest.raises(UserError, match="which method=baseline does not turn off"):
        IMAGES.config(["recipe=kl_ddim_cifar10", "method=baseline"])


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


def test_checkpoints_are_compared_by_scores_of_one_count(tiny_images: Build) -> None:
    config = tiny_images("training.evaluate_every=2", "evaluation.samples=40", "evaluation.curve_samples=16")
    IMAGES.train(config)
    scored = [row for row in read_metrics(Path(config.run_dir) / "metrics.jsonl") if "measures" in row]
    assert [(row["images"], row["score_images"]) for row in scored] == [(16, 16), (40, 16)]


def test_a_model_of_the_other_track_says_so() -> None:
    with pytest.raises(UserError, match="model=unet_small is for robot policies; choose a task of theirs"):
        IMAGES.config(["task=shapes", "model=unet_small"])


def test_the_command_line_trains_samples_and_says_where_everything_is(
    tiny_images: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str], shapes: Path
) -> None:
    from .conftest import TINY

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
