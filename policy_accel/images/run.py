"""The parts of an image run: the model, what scores it, and settings that only a whole run can check."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from policy_accel.acceleration.build import build_objective
from policy_accel.data.images.encoding import Encoding
from policy_accel.diffusion.processes import SIGMA_DATA
from policy_accel.errors import UserError
from policy_accel.images.config import ImageConfig
from policy_accel.images.generation.sampling import ImageSampler
from policy_accel.images.latents.autoencoder import Autoencoder
from policy_accel.images.latents.representation import Representation
from policy_accel.images.sets import ImageSplit, ImageTaskConfig
from policy_accel.images.task import condition_size
from policy_accel.models import Denoiser, build_denoiser
from policy_accel.models.images import Edm2Config
from policy_accel.training.randomness import seeded_weights


def build_sampler(config: ImageConfig) -> ImageSampler:
    """The objective with the settings by which it is sampled.

    Raises:
        UserError: a value out of range, settings that would do nothing, or a combination that makes no sense.
    """
    return ImageSampler(build_objective(config.diffusion, config.acceleration), config.sampling)


def with_sigma_data(config: ImageConfig, value: float) -> ImageConfig:
    """`config` with a number for diffusion.sigma_data."""
    return replace(config, diffusion=replace(config.diffusion, sigma_data=value))


def check_config(config: ImageConfig) -> None:
    """Raise UserError for everything that can be refused without the data of `config`."""
    unknown = config.diffusion.sigma_data is None and config.diffusion.sees_sigma_data
    build_sampler(with_sigma_data(config, SIGMA_DATA) if unknown else config)
    config.task.check()
    config.evaluation.check()
    check_guidance(config)
    config.check_distillation()
    if config.diffusion.family == "mip":
        raise UserError(
            "diffusion.family=mip regresses one sample on each condition, so that all images of a class would be the "
            "same; it is for policies. For images choose ddpm, edm, vp, ve or flow."
        )
    if isinstance(config.model, Edm2Config) and config.training.shard:
        raise UserError(
            "model=edm2 brings its weights back to unit length at every update, and with training.shard=true no "
            "process has the whole of them; set training.shard=false."
        )
    if config.acceleration.noise.center != "none":
        raise UserError(
            f"acceleration.noise.center={config.acceleration.noise.center} predicts the sample from a policy's "
            "observation; for images choose none."
        )
    evaluation = config.evaluation
    config.check_scores(
        scored=evaluation.curve_samples > 0, overlap=evaluation.overlap, to_score="evaluation.curve_samples"
    )


def check_guidance(config: ImageConfig, *, guide: bool = False) -> None:
    """Raise UserError when images are to be guided by a null class that the model was never trained on; a `guide`
    stands in its place."""
    taught = config.distillation.guidance
    asked = {
        "sampling": 1.0 if guide else config.sampling.guidance,
        "distillation": 1.0 if taught is None else taught,
    }
    wrong = [f"{section}.guidance={weight}" for section, weight in asked.items() if weight != 1.0]
    if wrong and not config.task.label_dropout:
        raise UserError(
            f"{wrong[0]} needs a model that has seen the null class, or a guide (--guide); train it with "
            "task.conditional=true task.label_dropout=0.1, or leave the guidance at 1."
        )


def build_model(config: ImageConfig, shape: tuple[int, int, int], classes: int) -> Denoiser:
    """A freshly initialised denoiser for images of `shape` (C, H, W); its weights follow from `config.seed` alone."""
    channels, height, _ = shape
    variance = {"out_channels": 2 * channels} if config.diffusion.learn_sigma else {}
    with seeded_weights(config.seed):
        return build_denoiser(
            config.model,
            channels=channels,
            resolution=height,
            condition_dim=condition_size(config.task, classes),
            classes=classes if config.task.conditional else 0,
            **variance,
        )


def representation_of(config: ImageConfig, split: ImageSplit, device: torch.device | str = "cpu") -> Representation:
    """Pixels, or latents with the autoencoder, on the device, that makes pixels of them; see `represented`."""
    if not split.train.latents:
        return Representation()
    encoding = split.train.encoding or Encoding(scale=(config.task.latent_scale,))
    return represented(config.task, encoding, split.train.shape[0], device)


def represented(
    config: ImageTaskConfig, encoding: Encoding, channels: int, device: torch.device | str
) -> Representation:
    """Latents of so many channels, with the autoencoder that task.autoencoder or else their encoding names.

    One that the encoding names and is not here is done without, with a warning.

    Raises:
        UserError: there is no autoencoder at task.autoencoder, or one that did not make these latents.
    """
    folder = config.autoencoder or encoding.autoencoder
    if folder is None:
        return Representation(encoding)
    try:
        autoencoder = Autoencoder(folder, device)
        if autoencoder.channels != channels:
            raise UserError(
                f"{autoencoder.folder}: makes latents of {autoencoder.channels} channels, and these have {channels}; "
                "give the autoencoder that made them as task.autoencoder."
            )
    except UserError as error:
        if config.autoencoder is not None:
            raise
        warnings.warn(
            f"{error} Without it, latents are drawn and measured as they are; task.autoencoder, also in a run's "
            "config.yaml, names it elsewhere.",
            stacklevel=1,
        )
        return Representation(encoding)
    return Representation(encoding, autoencoder)


@dataclass(frozen=True)
class LoadedImageRun:
    """A trained denoiser (averaged weights, eval mode) with what is needed to generate images from it.

    `shape` is (C, H, W); `classes` are the names of the classes the model knows, empty when it is unconditional;
    `source` is the run directory or the file that it is from.
    """

    model: Denoiser
    config: ImageConfig
    step: int
    sampler: ImageSampler
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    condition_dim: int
    representation: Representation
    source: Path | None = None
