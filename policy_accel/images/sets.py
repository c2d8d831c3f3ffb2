"""From an image set on disk to the training and held-out images of a run."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from dataclasses import dataclass

import numpy as np
from omegaconf import MISSING

from policy_accel.data.images import ImageSet, read_images
from policy_accel.data.images.subset import ArraySubset
from policy_accel.errors import UserError, one_of, refuse_idle
from policy_accel.training.randomness import derive_seed

AUGMENTATIONS = ("none", "flip", "edm")
RESIDENCES = ("auto", "device", "disk")
MOST_LISTED = 20
STABLE_DIFFUSION_SCALE = 0.18215


@dataclass
class ImageTaskConfig:
    """An image task: its data and how they become batches."""

    name: str = "custom_images"
    """Names the task in the run directory and in results."""
    data: str = MISSING
    """Path of an image set; "shipped:NAME" is a file of the package's folder datasets."""
    resolution: int | None = None
    """Crop images of other sizes to a square and resize them; null takes them as they are (all of one size)."""
    conditional: bool = False
    """Whether the model is told the class."""
    label_dropout: float = 0.0
    """Share of the training images that get the null class instead of theirs, for classifier-free guidance."""
    augmentation: str = "flip"
    """none, flip (horizontal mirror with probability 1/2) or edm (EDM's geometric pipeline, of which the model is
    told)."""
    augmentation_probability: float = 0.12
    """Of edm: probability of each of its transformations."""
    limit: int | None = None
    """Use the first so many training images only; null for all."""
    held_out: float = 0.1
    """Share of the images kept from training where the set has no test split of its own; 0 trains on all of them,
    and there is no validation loss."""
    validation_images: int = 1024
    """Held-out images on which the validation loss is taken."""
    split_seed: int = 42
    """Of the choice of held-out images."""
    skip_bad_images: bool = False
    """Leave out images that cannot be read or have no class, and list them; else the first of them is refused."""
    latent_scale: float = STABLE_DIFFUSION_SCALE
    """Of latents that do not tell their own, as those of `data encode` do: factor to about unit deviation."""
    autoencoder: str | None = None
    """Of latents: folder of the diffusers AutoencoderKL that makes pixels of them; null for the one that they name."""
    pixels: str | None = None
    """Of latents: the image set that they were made of, which decoded images are measured against; null for the one
    that they name."""
    residence: str = "auto"
    """Where the images lie while training: device, disk (memory-mapped, gathered for each batch), or auto: on a GPU
    when they fit into half of its free memory, and for the CPU where they are."""

    def check(self) -> None:
        """Raise UserError unless the settings make sense."""
        one_of("task.augmentation", self.augmentation, AUGMENTATIONS)
        one_of("task.residence", self.residence, RESIDENCES)
        if not 0 <= self.label_dropout < 1:
            raise UserError(f"task.label_dropout={self.label_dropout} must lie in [0, 1).")
        if self.label_dropout and not self.conditional:
            raise UserError(
                f"task.label_dropout={self.label_dropout} drops class labels, and with task.conditional=false the "
                "model gets none; set task.conditional=true, or label_dropout to 0."
            )
        if not 0 <= self.held_out < 1:
            raise UserError(f"task.held_out={self.held_out} must lie in [0, 1); 0 trains on all images.")
        if not 0 <= self.augmentation_probability <= 1:
            raise UserError(f"task.augmentation_probability={self.augmentation_probability} must lie in [0, 1].")
        if self.augmentation != "edm":
            plain = {field.name for field in dataclasses.fields(self)} - {"augmentation_probability"}
            refuse_idle(self, "task", plain, f"task.augmentation={self.augmentation}")
        if self.limit is not None and self.limit < 2:
            raise UserError(f"task.limit={self.limit} must be at least 2, or null for all images.")
        if self.validation_images < 0:
            raise UserError(f"task.validation_images={self.validation_images} must not be negative.")
        if not self.latent_scale > 0:
            raise UserError(f"task.latent_scale={self.latent_scale} must be positive.")


@dataclass(frozen=True)
class ImageSplit:
    """Training images and images that are never trained on (None where all are trained on), with the classes in
    common; of a set without a test split both look their images up in it.

    `whole` is the number of images of the training part, before any were held out or left out.
    """

    train: ImageSet
    held_out: ImageSet | None
    whole: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty without labels."""
        return self.train.classes


def load_split(config: ImageTaskConfig) -> ImageSplit:
    """Read the training images, and the test split as held-out ones, else a seeded share of the training images.

    Raises:
        UserError: as `read_images` does; labels asked for of a set without; too few images; latents with pixels'
            settings.
    """
    config.check()
    parts = [
        read_images(
            config.data,
            split,
            resolution=config.resolution,
            skip_bad=config.skip_bad_images,
            labelled=config.conditional,
        )
        for split in ("train", "test")
    ]
    train, test = parts
    if train is None:
        raise UserError(f"{config.data}: has no training part; give the folder with the images to train on.")
    for part in filter(None, parts):
        _tell(part)
    if config.conditional and train.labels is None:
        raise UserError(
            f"task.conditional=true needs class labels, and {config.data} has none; give images with labels, "
            "or train with task.conditional=false."
        )
    if test is not None and test.shape != train.shape:
        raise UserError(
            f"{config.data}: test images are {test.shape} and training images {train.shape} (channels, height, width); "
            "give task.resolution to make them equal."
        )
    if train.latents:
        if config.augmentation != "none":
            raise UserError(
                f"task.augmentation={config.augmentation} moves pixels, {config.data} holds latents; set it to none."
            )
        if train.encoding is not None:
            used = {field.name for field in dataclasses.fields(config)} - {"latent_scale"}
            refuse_idle(config, "task", used, f"latents that tell their own scale, as {config.data} does")
    else:
        used = {field.name for field in dataclasses.fields(config)} - {"latent_scale", "autoencoder", "pixels"}
        refuse_idle(config, "task", used, "pixels")
    whole = len(train)
    if test is None and config.held_out:
        train, test = _hold_out(train, config)
    if config.limit is not None:
        if config.limit > len(train):
            raise UserError(f"task.limit={config.limit} is more than the {len(train)} training images; lower it.")
        train = take(train, np.arange(config.limit))
    return ImageSplit(train, test, whole)


def _tell(images: ImageSet) -> None:
    """Warn of what was converted, assumed or left out in reading."""
    for remark in images.remarks:
        warnings.warn(f"{images.source}: {remark}", stacklevel=3)
    if images.skipped:
        listed = " ".join(images.skipped[:MOST_LISTED]) + (" ..." if len(images.skipped) > MOST_LISTED else "")
        warnings.warn(f"{images.source}: {len(images.skipped)} images are left out: {listed}", stacklevel=3)


def take(images: ImageSet, rows: np.ndarray) -> ImageSet:
    """The images `rows` of a set, none of them copied."""
    labels = None if images.labels is None else images.labels[rows]
    source = f"{images.source} ({len(rows)} of {len(images)})"
    key = hashlib.sha256(images.key.encode() + rows.tobytes()).hexdigest() if images.key else images.key
    return dataclasses.replace(images, images=ArraySubset(images.images, rows), labels=labels, source=source, key=key)


def _hold_out(images: ImageSet, config: ImageTaskConfig) -> tuple[ImageSet, ImageSet]:
    count = len(images)
    held = max(1, round(config.held_out * count))
    if count - held < 2:
        raise UserError(f"{config.data} has {count} images, too few to train on and to hold some out; give more.")
    order = np.random.default_rng(derive_seed(config.split_seed, "held-out images")).permutation(count)
    return take(images, np.sort(order[held:])), take(images, np.sort(order[:held]))
