"""An image model of another library as a run of ours."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from policy_accel.data.images.encoding import Encoding
from policy_accel.foreign.stored import Foreign, State, put
from policy_accel.images.config import ImageConfig
from policy_accel.images.latents.representation import Representation
from policy_accel.images.run import LoadedImageRun, build_model, build_sampler, check_config, represented
from policy_accel.images.task import condition_size
from policy_accel.images.track import IMAGES, UNKNOWN
from policy_accel.run_sampling import AS_CHOSEN, AskedSampling


@dataclass
class ForeignImages(Foreign[ImageConfig, LoadedImageRun]):
    """See `Foreign`.

    Attributes:
        shape: (C, H, W) of its images.
        classes: how many it is told of.
        latents: whether its images are latents of an autoencoder.
        encoding: of those; None for one by task.latent_scale.
        names: of the classes; none for their numbers.
        differences: what it samples otherwise than we do, as sentences.
    """

    track: ClassVar = IMAGES

    path: Path
    library: str
    shape: tuple[int, int, int]
    classes: int
    values: dict[str, Any]
    weights: Callable[[], State]
    latents: bool = False
    encoding: Encoding | None = None
    names: tuple[str, ...] = ()
    differences: list[str] = field(default_factory=list)

    def config(self, settings: Mapping[str, Any] | None = None) -> ImageConfig:
        """See `Foreign.config`."""
        values = copy.deepcopy(self.values)
        task = {"name": "custom_images", "data": UNKNOWN, "conditional": self.classes > 0, "augmentation": "none"}
        values["task"] = task | values.get("task", {})
        put(values, settings or {})
        return self.typed(values, check_config)

    def load(
        self, config: ImageConfig, device: torch.device | str = "cpu", asked: AskedSampling = AS_CHOSEN
    ) -> LoadedImageRun:
        """See `Foreign.load`."""
        config.sampling, _ = asked.of_run(config.sampling)
        model = build_model(config, self.shape, self.classes)
        self.fill(model)
        config.training.lay_out(model, device)
        model.eval().requires_grad_(False)
        for difference in self.differences:
            warnings.warn(f"{self.path}: {difference}", stacklevel=2)
        return LoadedImageRun(
            model,
            config,
            0,
            build_sampler(config),
            self.shape,
            self.names or tuple(map(str, range(self.classes))),
            condition_size(config.task, self.classes),
            self._representation(config, device),
            source=self.path,
        )

    def _representation(self, config: ImageConfig, device: torch.device | str) -> Representation:
        if not self.latents:
            return Representation()
        encoding = self.encoding or Encoding(scale=(config.task.latent_scale,))
        return represented(config.task, encoding, self.shape[0], device)
