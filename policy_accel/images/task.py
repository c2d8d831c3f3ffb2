"""The image track's task: images and classes for the training core, generated images for the score."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policy_accel.acceleration.assigned_noise import ConditionalAssignmentConfig, GroupedAssignmentConfig
from policy_accel.acceleration.noise_choices import NoiseConfig
from policy_accel.data.images import ImageSet
from policy_accel.data.images.subset import ImageArray, is_mapped
from policy_accel.diffusion import Batch, Objective
from policy_accel.diffusion.counter_noise import normal_by_counter
from policy_accel.diffusion.host_work import to_device
from policy_accel.errors import UserError
from policy_accel.images.augment import PARAMETERS, EdmAugmentation, Transforms, augment, half, mirror
from policy_accel.images.latents.representation import Representation
from policy_accel.images.sets import ImageSplit, ImageTaskConfig
from policy_accel.memory import free_memory
from policy_accel.models.denoiser import Denoiser
from policy_accel.models.flops import training_flops
from policy_accel.training.randomness import derive_seed
from policy_accel.training.self_consistency import lesson_of
from policy_accel.training.task import Draws, Task

TRANSFORMS = tuple(field.name for field in dataclasses.fields(Transforms))
Evaluator = Callable[..., dict[str, Any] | None]
PIECE = 4096
"""Images that go to the device together."""


def condition_size(config: ImageTaskConfig, classes: int) -> int:
    """Numbers of the model's condition: one for each class, and EDM's augmentation parameters."""
    return (classes if config.conditional else 0) + (PARAMETERS if config.augmentation == "edm" else 0)


class ImageTask(Task):
    """Images for the training core.

    They lie on the GPU as uint8 when they fit, and are turned into x0 there; else each batch is gathered from the
    memory-mapped file, or from memory.

    Args:
        model: denoiser of x [B, C, H, W].
        objective: noise, time and target.
        split: training and held-out images.
        config: how they become batches.
        representation: pixels or latents.
        noise: settings of the objective's choice of noise, which may need groups: the classes.
        evaluator: scores a model, or None.
    """

    def __init__(
        self,
        model: Denoiser,
        objective: Objective,
        split: ImageSplit,
        config: ImageTaskConfig,
        *,
        representation: Representation,
        noise: NoiseConfig,
        evaluator: Evaluator | None = None,
    ) -> None:
        self.model, self.objective, self.config = model, objective, config
        self.lesson = lesson_of(objective)
        self.representation, self.evaluator = representation, evaluator
        self.classes = len(split.classes) if config.conditional else 0
        self.condition_dim = condition_size(config, len(split.classes))
        self.samples = len(split.train)
        held_out = split.held_out
        self.validation_samples = 0 if held_out is None else min(config.validation_images, len(held_out))
        self.fingerprint = f"{split.train.fingerprint()}/{self.samples}"
        self.train = _Images(split.train)
        self.validation = None if held_out is None else _Images(held_out, self.validation_samples)
        if isinstance(noise, GroupedAssignmentConfig):
            if self.train.labels is None:
                raise UserError(
                    f"acceleration.noise.name={noise.name} assigns noise inside the classes, and {split.train.source} "
                    "has no class labels; choose acceleration/noise=assignment."
                )
            self.groups, self.group_run = self.train.labels, noise.group_run
        if isinstance(noise, ConditionalAssignmentConfig):
            self._check_conditions(noise.name)
        self.one_hot = torch.eye(self.classes)
        self.augmentation = EdmAugmentation(config.augmentation_probability) if config.augmentation == "edm" else None
        self.shape = split.train.shape
        self.description = {
            "shape": list(split.train.shape),
            "classes": list(split.classes),
            **representation.record(),
        }

    def _check_conditions(self, choice: str) -> None:
        """Raise UserError unless the model's condition is the class alone, which the choice of noise compares."""
        if not self.classes:
            raise UserError(
                f"acceleration.noise.name={choice} compares the classes that the model is told; set "
                "task.conditional=true."
            )
        if self.config.augmentation == "edm":
            raise UserError(
                f"acceleration.noise.name={choice} compares the classes, and with task.augmentation=edm the model is "
                "told the augmentation beside them; set task.augmentation=flip."
            )

    def to(self, device: torch.device) -> None:
        """Move model, tables and, where they fit, the images to `device`."""
        self.model.to(device)
        self.flops_per_sample = training_flops(self.model, self.shape, self.condition_dim)
        self.objective = self.objective.to(device)
        self.groups = None if self.groups is None else self.groups.to(device)
        self.one_hot = self.one_hot.to(device)
        for images in filter(None, (self.train, self.validation)):
            images.to(device, self.config.residence)
        self.resident = self.train.near

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Which of `count` images are mirrored or keep their class, and EDM's transformations: [B] each; and by which
        noise [B, C, H, W] latents are drawn from their moments."""
        drawn = {}
        if self.config.augmentation == "flip":
            drawn["flip"] = half(count, generator)
        if self.classes and self.config.label_dropout:
            drawn["kept"] = torch.rand(count, generator=generator, device=generator.device) >= self.config.label_dropout
        if self.augmentation is not None:
            drawn.update(vars(self.augmentation.draw(count, generator)))
        if self.representation.moments:
            drawn["latent"] = torch.randn(count, *self.shape, generator=generator, device=generator.device)
        return drawn

    def batch(self, indices: Tensor, drawn: Draws) -> Batch:
        """Training images `indices` [B], augmented: x0 [B, C, H, W] in [-1, 1], condition [B, D] or None."""
        images, labels = self.train.take(indices)
        x0 = self.representation.encode(images, drawn.get("latent"))
        if "flip" in drawn:
            x0 = mirror(x0, drawn["flip"])
        parts = self._classes(labels)
        if "kept" in drawn:
            parts = [parts[0] * drawn["kept"][:, None]]
        if self.augmentation is not None:
            x0, parameters = augment(x0, Transforms(**{name: drawn[name] for name in TRANSFORMS}))
            parts.append(parameters)
        groups = None if self.groups is None else self.groups[to_device(indices, self.groups.device)]
        return Batch(x0, condition=torch.cat(parts, dim=1) if parts else None, groups=groups)

    def validation_batch(self, indices: Tensor) -> Batch:
        """Held-out images `indices` [B] as they are; of moments a latent that follows from the index."""
        assert self.validation is not None
        images, labels = self.validation.take(indices)
        noise = None
        if self.representation.moments:
            rows = to_device(indices, images.device)
            noise = normal_by_counter(derive_seed(0, "validation latents"), rows, 0, self.shape)
        parts = self._classes(labels)
        if self.augmentation is not None:
            parts.append(torch.zeros(len(images), PARAMETERS, device=images.device))
        return Batch(self.representation.encode(images, noise), condition=torch.cat(parts, dim=1) if parts else None)

    def _classes(self, labels: Tensor | None) -> list[Tensor]:
        return [self.one_hot[labels]] if self.classes and labels is not None else []

    def evaluate(self, model: Denoiser, report: Callable[[str], None], *, step: int) -> dict[str, Any] | None:
        """Score `model` by the images it generates, or None without an evaluator."""
        return None if self.evaluator is None else self.evaluator(model, report, step=step)


class _Images:
    """The images and labels of a set, on the device or read where they are; the first `count` of them.

    `near` says whether a batch waits for no disk and no host: it lies on the device, or in memory for the CPU.
    """

    def __init__(self, images: ImageSet, count: int | None = None) -> None:
        self.images = images
        self.count = len(images) if count is None else count
        self.device = torch.device("cpu")
        self.resident: Tensor | None = None
        self.near = False
        self.labels = None if images.labels is None else torch.from_numpy(np.asarray(images.labels, dtype=np.int64))

    def to(self, device: torch.device, residence: str) -> None:
        """Go to `device`: the labels always, the images when `residence` says so or they fit. On the CPU nothing is
        copied but by residence=device: what lies in memory is there, and what is mapped from a file stays so."""
        self.device = device
        self.labels = None if self.labels is None else self.labels.to(device)
        in_memory = device.type == "cpu" and not is_mapped(self.images.images)
        fits = device.type != "cpu" and self.images.images.nbytes <= free_memory(device) // 2
        if not in_memory and (residence == "device" or (residence == "auto" and fits)):
            self.resident = _moved(self.images.images, self.count, device)
        self.near = self.resident is not None or (in_memory and residence != "disk")

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images [B, C, H, W] as stored and labels [B], on the device. `indices` of images that do not lie there are
        best on the host, where they are read.
        """
        there = to_device(indices, self.device)
        labels = None if self.labels is None else self.labels[there]
        if self.resident is not None:
            return self.resident[there], labels
        return to_device(torch.from_numpy(self.images.images[indices.cpu().numpy()]), self.device), labels


def _moved(images: ImageArray, count: int, device: torch.device) -> Tensor:
    """The first `count` images on the device, by pieces, so that the host never holds a copy of all."""
    found = torch.empty((count, *images.shape[1:]), dtype=torch.from_numpy(images[:0].copy()).dtype, device=device)
    for begin in range(0, count, PIECE):
        piece = slice(begin, min(begin + PIECE, count))
        found[piece] = torch.from_numpy(np.array(images[piece])).to(device)
    return found
