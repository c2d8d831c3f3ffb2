"""Image runs: build everything from a configuration, train it, load it again, score it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from policy_accel.acceleration.build import build_objective
from policy_accel.configuration import IMAGES, compose_config, plain
from policy_accel.diffusion import Objective
from policy_accel.errors import UserError
from policy_accel.images.config import ImageConfig, register
from policy_accel.images.evaluate import ImageEvaluator
from policy_accel.images.representation import Representation
from policy_accel.images.sets import ImageSplit, load_split
from policy_accel.images.task import ImageTask, condition_size
from policy_accel.models import Denoiser, build_denoiser
from policy_accel.training.checkpoint import load_checkpoint
from policy_accel.training.devices import choose_device
from policy_accel.training.loop import Trained, train
from policy_accel.training.post_hoc_ema import synthesize
from policy_accel.training.randomness import seeded_weights
from policy_accel.training.run_directory import checkpoint_path, read_typed_config


def image_config(overrides: list[str]) -> ImageConfig:
    """The typed configuration for command-line `overrides`.

    Raises:
        UserError: as `compose_config` does.
    """
    register()
    config = OmegaConf.to_object(compose_config(IMAGES, overrides))
    assert isinstance(config, ImageConfig)
    if "method=baseline" in overrides and config.method != "baseline":
        raise UserError(
            f"recipe={config.label} names accelerations of its own, which method=baseline does not turn off; their "
            "baselines are recipe=ddpm_cifar10 and recipe=edm_cifar10."
        )
    return config


def config_record(config: ImageConfig) -> dict[str, Any]:
    """The configuration as plain values, as it is kept in a run directory."""
    return plain(OmegaConf.structured(config))


def check_config(config: ImageConfig) -> Objective:
    """The objective of `config`, after everything that can be refused without its data."""
    objective = build_objective(config.diffusion, config.acceleration)
    config.sampling.check(objective.process)
    config.task.check()
    config.evaluation.check()
    check_guidance(config)
    if config.acceleration.noise.center != "none":
        raise UserError(
            f"acceleration.noise.center={config.acceleration.noise.center} predicts the sample from a policy's "
            "observation; for images choose none."
        )
    config.check_noise(scored=config.evaluation.curve_samples > 0, to_score="evaluation.curve_samples")
    return objective


def check_guidance(config: ImageConfig) -> None:
    """Raise UserError when images are to be guided by a null class that the model was never trained on."""
    if config.sampling.guidance != 1.0 and not config.task.label_dropout:
        raise UserError(
            f"sampling.guidance={config.sampling.guidance} needs a model that has seen the null class; train it with "
            "task.conditional=true task.label_dropout=0.1, or leave the guidance at 1."
        )


def build_model(config: ImageConfig, shape: tuple[int, int, int], classes: int) -> Denoiser:
    """A freshly initialised denoiser for images of `shape` (C, H, W); its weights follow from `config.seed` alone."""
    channels, height, _ = shape
    with seeded_weights(config.seed):
        return build_denoiser(
            config.model, channels=channels, resolution=height, condition_dim=condition_size(config.task, classes)
        )


def build_evaluator(
    config: ImageConfig, split: ImageSplit, run_dir: Path, device: torch.device | str = "cpu"
) -> ImageEvaluator:
    """What scores a model of this configuration on `device`."""
    classes = len(split.classes) if config.task.conditional else 0
    config.sampling.check_classes(classes)
    return ImageEvaluator(
        split,
        objective=build_objective(config.diffusion, config.acceleration),
        sampling=config.sampling,
        config=config.evaluation,
        representation=representation_of(config, split),
        classes=classes,
        condition_dim=condition_size(config.task, len(split.classes)),
        clip=config.diffusion.clip_sample,
        precision=config.training.precision,
        run_dir=run_dir,
        last_step=config.training.steps,
        device=device,
    )


def representation_of(config: ImageConfig, split: ImageSplit) -> Representation:
    """Pixels or latents."""
    return Representation(split.train.latents, config.task.latent_scale if split.train.latents else 1.0)


def build_task(config: ImageConfig, split: ImageSplit, evaluator: ImageEvaluator | None = None) -> ImageTask:
    """Data, model and objective for the training core."""
    return ImageTask(
        build_model(config, split.train.shape, len(split.classes)),
        check_config(config),
        split,
        config.task,
        representation=representation_of(config, split),
        noise=config.acceleration.noise,
        evaluator=evaluator,
    )


def train_run(config: ImageConfig, after_update: Callable[[int], None] | None = None) -> Trained:
    """Train the model of `config` in its run directory, or continue it, and score it."""
    run_dir = Path(config.run_dir)
    check_config(config)
    split = load_split(config.task)
    return train(
        build_task(config, split, build_evaluator(config, split, run_dir, choose_device(config.training.device))),
        config.training,
        seed=config.seed,
        run_dir=run_dir,
        run_config=config_record(config),
        after_update=after_update,
    )


@dataclass(frozen=True)
class LoadedImageRun:
    """A trained denoiser (averaged weights, eval mode) with what is needed to generate images from it.

    `shape` is (C, H, W); `classes` are the names of the classes the model knows, empty when it is unconditional.
    """

    model: Denoiser
    config: ImageConfig
    step: int
    objective: Objective
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    condition_dim: int
    representation: Representation


def averages(run_dir: Path, checkpoint: str = "last") -> list[str]:
    """Names of the averages of the weights that a checkpoint holds: "ema" first, then "ema_0.05" and so on.

    Raises:
        UserError: no such run or checkpoint.
    """
    files = checkpoint_path(run_dir, checkpoint).glob("ema*.safetensors")
    return sorted((file.name.removesuffix(".safetensors") for file in files), key=lambda name: (len(name) > 3, name))


def load_image_run(
    run_dir: Path, checkpoint: str = "last", device: torch.device | str = "cpu", average: str | None = None
) -> LoadedImageRun:
    """Load the model of a run directory.

    Args:
        run_dir: made by `train_run`.
        checkpoint: "last", "best" (highest score during training) or a step.
        device: where the model goes.
        average: which average of the weights, one of `averages`, or "ema_LENGTH" of another length, which is made from
            the checkpoints of the run (post-hoc EMA); None for the run's main one, "ema".

    Raises:
        UserError: not a run directory of images, no such checkpoint or average, a damaged file.
    """
    config = read_image_config(run_dir)
    path = checkpoint_path(run_dir, checkpoint)
    known = averages(run_dir, checkpoint)
    name = average or "ema"
    length = _length(name)
    if name not in known and length is None:
        raise UserError(f"{path} has no average '{name}' of the weights; it has {', '.join(known)}.")
    saved = load_checkpoint(path, (name if name in known else "ema",))
    tensors = saved.tensors[name] if name in known else synthesize(run_dir, float(length or 0), step=saved.step)[0]
    image_format = saved.state.get("task")
    if not isinstance(image_format, dict):
        raise UserError(f"{path / 'state.json'} does not say what images the model makes; train the run again.")
    shape, classes = tuple(image_format["shape"]), tuple(image_format["classes"])
    model = build_model(config, shape, len(classes))
    model.load_state_dict(tensors)
    model.to(device).eval().requires_grad_(False)
    return LoadedImageRun(
        model,
        config,
        saved.step,
        build_objective(config.diffusion, config.acceleration),
        shape,
        classes if config.task.conditional else (),
        condition_size(config.task, len(classes)),
        Representation(bool(image_format["latents"]), float(image_format["latent_scale"])),
    )


def _length(name: str) -> float | None:
    """The length in a name such as "ema_0.07"; None for another name."""
    found = re.fullmatch(r"ema_(\d*\.?\d+)", name)
    return float(found[1]) if found else None


def read_image_config(run_dir: Path) -> ImageConfig:
    """The configuration of an image run.

    Raises:
        UserError: not a run directory, or one of another kind of run.
    """

    register()
    config = read_typed_config(run_dir, ImageConfig, IMAGES.name)
    assert isinstance(config, ImageConfig)
    return config
