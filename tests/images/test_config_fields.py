"""Every field of an image run's configuration reaches the object that it configures.

Training, acceleration, diffusion and the sampler are the robot track's own classes, whose fields are tested there; here
they must be the very objects that the image run uses.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from support.batches import batch_of
from support.config_fields import count, fields_of, freeze, model_fields
from support.overlap import scored_beside

from policy_accel.data.images import ImageSet
from policy_accel.errors import UserError
from policy_accel.images.config import ImageConfig
from policy_accel.images.metrics.features import RandomConvFeatures
from policy_accel.images.run import build_model
from policy_accel.images.scoring.evaluate import ImageEvaluator
from policy_accel.images.sets import load_split
from policy_accel.images.shapes import write_images_npz
from policy_accel.images.track import IMAGES
from policy_accel.training.randomness import named_generator
from policy_accel.training.task import Batch

from .conftest import TINY, pixels, write_shapes

Build = Callable[..., ImageConfig]
Probe = Callable[[ImageConfig], Any]
SHARED = ("training", "acceleration", "diffusion", "distillation")


def batch(config: ImageConfig) -> Batch:
    task = IMAGES.build(config)
    task.to(torch.device("cpu"))
    return batch_of(task, torch.arange(32), named_generator(0, "batch"))


def inputs(config: ImageConfig) -> Any:
    return batch(config).x0, batch(config).condition


def task_probe(look: Callable[[Any], Any]) -> Probe:
    def probe(config: ImageConfig) -> Any:
        task = IMAGES.build(config)
        task.to(torch.device("cpu"))
        return look(task)

    return probe


def evaluator_of(config: ImageConfig) -> tuple[ImageEvaluator, torch.nn.Module]:
    split = load_split(config.task)
    model = build_model(config, split.train.shape, len(split.classes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(1))
    return ImageEvaluator(config, split, Path(config.run_dir)), model


def measured(full: bool = True) -> Probe:
    """What an evaluation reports but for the time it took."""

    def probe(config: ImageConfig) -> Any:
        evaluator, model = evaluator_of(config)
        result = evaluator.measure(model, print, full=full)
        return None if result is None else {key: str(value) for key, value in result.items() if key != "seconds"}

    return probe


def drawn(config: ImageConfig) -> Any:
    """The grids and films that an evaluation leaves."""
    evaluator, model = evaluator_of(config)
    evaluator(model, print, step=config.training.steps)
    folder = Path(config.run_dir) / "samples"
    return sorted((path.name, path.stat().st_size) for path in folder.glob("*"))


def at_a_time(config: ImageConfig) -> Any:
    """How many images go through the network at once, and through a feature network."""
    evaluator, model = evaluator_of(config)
    seen: list[int] = []
    handle = model.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
    evaluator.samples(model, range(12))
    handle.remove()
    return seen


def features_at_a_time(config: ImageConfig) -> Any:
    seen: list[int] = []
    original = RandomConvFeatures.__call__

    def watch(self: RandomConvFeatures, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return original(self, images)

    with mock.patch.object(RandomConvFeatures, "__call__", watch):
        measured()(config)
    return seen


def named_weights(config: ImageConfig) -> Any:
    """The error that names weights which are not there."""
    try:
        evaluator_of(config)
    except Exception as error:
        return str(error)
    return None


def skipped(config: ImageConfig) -> Any:
    """Whether an unreadable image of a folder is refused, or left out and named in a warning."""
    Path(config.task.data, "bad.png").write_bytes(b"no image")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            left = len(load_split(config.task).train)
    except UserError as error:
        return str(error)
    assert any("1 images are left out: " in str(warning.message) for warning in told)
    return left


HEUN = ["diffusion.family=edm", "diffusion.target=edm", "sampling.sampler=heun"]
EDM_AUGMENTED = ["task.augmentation=edm"]
FIELDS: dict[str, tuple[str, Probe, list[str]]] = {
    "task.name": ("other", lambda config: Path(config.run_dir).name, ["run_dir=x/${task.name}"]),
    "task.data": ("OTHER_DATA", inputs, []),
    "task.resolution": ("8", inputs, ["task.data=FOLDER", "task.conditional=false"]),
    "task.conditional": ("false", inputs, []),
    "task.label_dropout": ("0.5", inputs, []),
    "task.augmentation": ("flip", inputs, []),
    "task.augmentation_probability": ("1.0", inputs, EDM_AUGMENTED),
    "task.limit": ("20", task_probe(lambda task: task.samples), []),
    "task.held_out": ("0.5", task_probe(lambda task: task.samples), ["task.data=ONE_PART"]),
    "task.validation_images": ("7", task_probe(lambda task: task.validation_samples), []),
    "task.split_seed": ("1", inputs, ["task.data=ONE_PART"]),
    "task.latent_scale": ("0.5", inputs, ["task.data=LATENTS", "task.conditional=false"]),
    "task.autoencoder": ("nowhere", named_weights, ["task.data=LATENTS", "task.conditional=false"]),
    "task.pixels": ("nowhere", named_weights, ["task.data=LATENTS", "task.conditional=false"]),
    "task.skip_bad_images": ("true", skipped, ["task.data=FOLDER", "task.conditional=false", "task.resolution=16"]),
    "task.residence": ("disk", task_probe(lambda task: task.resident), []),
    "sampling.clip_sample": ("0.01", measured(), []),
    "sampling.sampler": ("euler", measured(), []),
    "sampling.steps": ("3", measured(), []),
    "sampling.spacing": ("leading", measured(), []),
    "sampling.times": ("[60,5]", measured(), []),
    "sampling.variance": ("large", measured(), ["sampling.sampler=ddpm"]),
    "sampling.churn": ("1.0", measured(), HEUN),
    "sampling.churn_min": ("1.0", measured(), [*HEUN, "sampling.churn=1.0"]),
    "sampling.churn_max": ("1.0", measured(), [*HEUN, "sampling.churn=1.0"]),
    "sampling.churn_noise": ("1.5", measured(), [*HEUN, "sampling.churn=1.0"]),
    "sampling.guidance": ("3.0", measured(), []),
    "sampling.guidance_interval": ("[0.0,9.0]", measured(), ["sampling.guidance=3.0"]),
    "evaluation.samples": ("20", measured(), []),
    "evaluation.curve_samples": ("20", measured(full=False), []),
    "evaluation.curve_measures": ("[coverage]", measured(full=False), []),
    "evaluation.score_measure": ("coverage", measured(full=False), []),
    "evaluation.protocol": ("edm", measured(), []),
    "evaluation.seed": ("5", measured(), []),
    "evaluation.batch_size": ("5", at_a_time, []),
    "evaluation.grid": ("9", drawn, []),
    "evaluation.video": ("true", drawn, []),
    "evaluation.overlap": ("true", scored_beside, ["training.evaluate_every=2"]),
    "evaluation.metrics.inception": ("nowhere.pth", named_weights, []),
    "evaluation.metrics.reference": ("nowhere.npz", named_weights, []),
    "evaluation.metrics.mirrored_reference": ("true", measured(), []),
    "evaluation.metrics.resnet": ("nowhere.npz", named_weights, ["task.data=LARGER", "evaluation.samples=2"]),
    "evaluation.metrics.neighbours": ("4", measured(), []),
    "evaluation.metrics.neighbour_samples": ("10", measured(), []),
    "evaluation.metrics.sliced_samples": ("10", measured(), []),
    "evaluation.metrics.projections": ("4", measured(), []),
    "evaluation.metrics.copy_quantile": ("0.5", measured(), []),
    "evaluation.metrics.batch_size": ("5", features_at_a_time, []),
    "method": ("clts", lambda config: Path(config.run_dir).name, ["run_dir=x/${method}"]),
    "label": ("mine", lambda config: Path(config.run_dir).name, ["run_dir=x/${label}"]),
    "seed": ("1", lambda config: next(build_model(config, (3, 16, 16), 8).parameters()).detach(), []),
    "run_dir": (
        "OTHER_DIR",
        lambda config: (IMAGES.train(config), Path(config.run_dir).is_dir(), config.run_dir)[1:],
        [],
    ),
}


def attentions(net: torch.nn.Module) -> int:
    return sum("qkv" in name and name.endswith("weight") for name, _ in net.named_parameters())


def heads(net: torch.nn.Module) -> list[int]:
    return [module.heads for module in net.modules() if hasattr(module, "heads")]


def dropouts(net: torch.nn.Module) -> list[float]:
    return [
        part
        for module in net.modules()
        for part in ([module.p] if isinstance(module, torch.nn.Dropout) else [getattr(module, "dropout", 0.0)])
        if isinstance(part, float)
    ]


def outputs(net: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    x = torch.randn(1, 3, 16, 16, generator=generator)
    return net.eval()(x, torch.tensor([0.3]), torch.ones(1, 8)).detach()


U_NET = {
    "channels": ("16", count),
    "multipliers": ("[1,1]", count),
    "blocks": ("2", count),
    "attention_resolutions": ("[16]", attentions),
    "heads": ("2", heads),
    "dropout": ("0.3", dropouts),
}
BY_WIDTH = {name: look for name, look in U_NET.items() if name != "heads"} | {"head_channels": ("4", heads)}
MODEL_FIELDS: dict[str, tuple[str, Callable[[torch.nn.Module], Any]]] = {
    **{f"{name}.{field}": look for name in ("ddpm", "edm") for field, look in U_NET.items()},
    **{f"{name}.{field}": look for name in ("adm", "edm2") for field, look in BY_WIDTH.items()},
    "ddpm.head_channels": ("4", outputs),
    "ddpm.groups": ("1", outputs),
    "ddpm.eps": ("0.1", outputs),
    "ddpm.padding": ("around", outputs),
    "ddpm.frequency_shift": ("0", outputs),
    "edm2.uncertainty": ("0", count),
    "edm.embedding": ("fourier", outputs),
    "edm.time_multiplier": ("2", count),
    "edm.encoder": ("residual", count),
    "edm.resample_filter": ("[1,3,3,1]", outputs),
    "dit.patch": ("8", count),
    "dit.depth": ("2", count),
    "dit.width": ("32", count),
    "dit.heads": ("4", outputs),
    "dit.mlp_ratio": ("2", count),
}


def test_the_table_names_every_field(tiny_images: Build) -> None:
    elsewhere = ("model", "track", "plugins", "init_from", *SHARED)  # init_from in tests/images/test_run.py
    assert set(fields_of(tiny_images(), elsewhere)) == set(FIELDS)
    assert model_fields("images") == set(MODEL_FIELDS)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """Data sets that some fields need."""
    from PIL import Image

    write_shapes(tmp_path / "other.npz", seed=7)
    write_shapes(tmp_path / "larger.npz", size=32)
    write_images_npz(tmp_path / "part.npz", ImageSet(pixels(60), np.arange(60) % 8, tuple("abcdefgh"), "x"), None)
    np.save(tmp_path / "latents.npy", np.random.default_rng(0).normal(size=(60, 4, 16, 16)).astype(np.float32))
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(pixels(60)):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "folder" / f"{i:03d}.png")
    return {
        "OTHER_DATA": str(tmp_path / "other.npz"),
        "LARGER": str(tmp_path / "larger.npz"),
        "ONE_PART": str(tmp_path / "part.npz"),
        "LATENTS": str(tmp_path / "latents.npy"),
        "FOLDER": str(tmp_path / "folder"),
        "OTHER_DIR": str(tmp_path / "elsewhere"),
    }


@pytest.mark.parametrize("key", list(FIELDS))
def test_a_field_changes_what_it_configures(
    key: str, tiny_images: Build, tmp_path: Path, places: dict[str, str]
) -> None:
    value, probe, overrides = FIELDS[key]
    named = [f"{name}={places.get(part, part)}" for name, part in (override.split("=", 1) for override in overrides)]
    own_dir = key == "run_dir" or any(override.startswith("run_dir") for override in overrides)
    seen = []
    for side, change in (("before", []), ("after", [f"{key}={places.get(value, value)}"])):
        directory = [] if own_dir else [f"run_dir={tmp_path / side}"]
        seen.append(freeze(probe(tiny_images(*named, *directory, *change))))
    assert seen[0] != seen[1]


@pytest.mark.parametrize("key", list(MODEL_FIELDS))
def test_a_model_field_changes_the_network(key: str, tiny_images: Build) -> None:
    name, field = key.split(".")
    value, look = MODEL_FIELDS[key]
    plain, changed = (
        freeze(look(build_model(tiny_images(f"model={name}", *TINY[name], *change), (3, 16, 16), 8)))
        for change in ([], [f"model.{field}={value}"])
    )
    assert plain != changed


def test_the_shared_settings_are_what_the_run_uses(tiny_images: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    import policy_accel.images.run as run
    import policy_accel.track

    seen: dict[str, Any] = {}
    original = run.build_objective

    def build(diffusion: Any, acceleration: Any) -> Any:
        seen["diffusion"], seen["acceleration"] = diffusion, acceleration
        return original(diffusion, acceleration)

    def train(task: Any, training: Any, **options: Any) -> Any:
        seen["training"], seen["objective"] = training, task.objective
        return options

    monkeypatch.setattr(run, "build_objective", build)
    monkeypatch.setattr(policy_accel.track, "train", train)
    config = tiny_images()
    IMAGES.train(config)
    for name in SHARED[:3]:
        assert seen[name] is getattr(config, name)


def test_the_precision_reaches_the_sampler(tiny_images: Build) -> None:
    evaluator, model = evaluator_of(tiny_images("training.precision=bf16"))
    plain, other = evaluator_of(tiny_images())
    assert not torch.equal(evaluator.samples(model, range(4)), plain.samples(other, range(4)))
