"""The image track: denoisers of images, measured by the images that they make."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from policy_accel.configuration import SOURCES
from policy_accel.errors import UserError
from policy_accel.images.config import ImageConfig
from policy_accel.images.evaluate import ImageEvaluator
from policy_accel.images.representation import Representation
from policy_accel.images.run import (
    LoadedImageRun,
    averages,
    build_model,
    build_sampler,
    check_config,
    representation_of,
)
from policy_accel.images.score import describe_images, score_run
from policy_accel.images.sets import load_split
from policy_accel.images.task import ImageTask, condition_size
from policy_accel.track import Report, Track
from policy_accel.training.checkpoint import load_checkpoint
from policy_accel.training.devices import choose_device
from policy_accel.training.post_hoc_ema import synthesize
from policy_accel.training.run_directory import checkpoint_path


class ImageTrack(Track[ImageConfig]):
    """See `Track`."""

    source = SOURCES["images"]
    demo = "images_demo"
    schema = ImageConfig

    def config(self, overrides: Sequence[str], config_dir: Path | None = None) -> ImageConfig:
        """See `Track.config`."""
        config = super().config(overrides, config_dir)
        if "method=baseline" in overrides and config.method != "baseline":
            raise UserError(
                f"recipe={config.label} names accelerations of its own, which method=baseline does not turn off; their "
                "baselines are recipe=ddpm_cifar10 and recipe=edm_cifar10."
            )
        return config

    def build(self, config: ImageConfig, *, scored: bool = False) -> ImageTask:
        """See `Track.build`."""
        objective = check_config(config)
        split = load_split(config.task)
        model = build_model(config, split.train.shape, len(split.classes))
        device = choose_device(config.training.device)
        return ImageTask(
            model,
            objective,
            split,
            config.task,
            representation=representation_of(config, split),
            noise=config.acceleration.noise,
            evaluator=ImageEvaluator(config, split, Path(config.run_dir), device) if scored else None,
        )

    def load(
        self,
        run_dir: Path,
        checkpoint: str = "last",
        device: torch.device | str = "cpu",
        average: str | None = None,
    ) -> LoadedImageRun:
        """See `Track.load`.

        Args:
            run_dir: made by `train`.
            checkpoint: "last", "best" (highest score during training) or a step.
            device: where the model goes.
            average: which average of the weights, one of `averages`, or "ema_LENGTH" of another length, which is made
                from the checkpoints of the run (post-hoc EMA); None for the run's main one, "ema".

        Raises:
            UserError: not a run directory of images, no such checkpoint or average, a damaged file.
        """
        config = self.read(run_dir)
        path = checkpoint_path(run_dir, checkpoint)
        known = averages(run_dir, checkpoint)
        name = average or "ema"
        length = _length(name)
        if name not in known and length is None:
            raise UserError(f"{path} has no average '{name}' of the weights; it has {', '.join(known)}.")
        saved = load_checkpoint(path, (name if name in known else "ema",))
        tensors = saved.tensors[name] if name in known else synthesize(run_dir, float(length or 0), saved.step)
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
            build_sampler(config),
            shape,
            classes if config.task.conditional else (),
            condition_size(config.task, len(classes)),
            Representation(bool(image_format["latents"]), float(image_format["latent_scale"])),
        )

    def evaluate(self, run_dir: Path, options: argparse.Namespace, report: Report) -> dict[str, Any]:
        """See `Track.evaluate`; one average of the weights is scored, or all of them, and the best is the result."""
        device = choose_device(options.device, "--device")

        def load(average: str) -> LoadedImageRun:
            return self.load(run_dir, options.checkpoint, device, average)

        return score_run(self.read(run_dir), run_dir, load, device, options, report)

    def describe(self, result: dict[str, Any]) -> str:
        """See `Track.describe`."""
        return describe_images(result)


def _length(name: str) -> float | None:
    """The length in a name such as "ema_0.07"; None for another name."""
    found = re.fullmatch(r"ema_(\d*\.?\d+)", name)
    return float(found[1]) if found else None


IMAGES = ImageTrack()
