"""Scoring an image model: images from fixed seeds, measured beside what real held-out images reach."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from policy_accel.data.images.read import default_cache
from policy_accel.errors import UserError
from policy_accel.images.config import ImageConfig
from policy_accel.images.generation.generate import ImageGenerator
from policy_accel.images.generation.guidance import Guide
from policy_accel.images.generation.pictures import forming_video, grid, shown_scale, write_png
from policy_accel.images.latents.pixels import pixels_of
from policy_accel.images.metrics import Quality
from policy_accel.images.metrics import score as score_of
from policy_accel.images.run import build_sampler, representation_of
from policy_accel.images.scoring.protocol import PROTOCOLS, Protocol, described, of_draws
from policy_accel.images.sets import ImageSplit
from policy_accel.images.task import condition_size
from policy_accel.progress import Progress
from policy_accel.run_sampling import sampling_record
from policy_accel.training.randomness import named_generator
from policy_accel.training.ranks import ALONE, Ranks

T = TypeVar("T")


class ImageEvaluator:
    """Generates images with a model and measures them.

    Args:
        config: of the run.
        split: real images: the training ones are the reference, the held-out ones the floor.
        run_dir: sample grids go to its folder samples.
        device: where images are measured.
        ranks: the processes that draw the images together; the first measures them.
        guide: a worse network that guides them in place of the null class, or None.

    Raises:
        UserError: settings that make no sense, weights of a feature network that cannot be read.
    """

    def __init__(
        self,
        config: ImageConfig,
        split: ImageSplit,
        run_dir: Path,
        device: torch.device | str = "cpu",
        *,
        ranks: Ranks = ALONE,
        guide: Guide | None = None,
    ) -> None:
        config.evaluation.check()
        self.ranks, self.guide = ranks, guide
        self.config, self.split, self.run_dir = config.evaluation, split, run_dir
        self.classes = len(split.classes) if config.task.conditional else 0
        config.sampling.check_classes(self.classes, guide=guide is not None)
        self.condition_dim = condition_size(config.task, len(split.classes))
        self.sampler, self.representation = build_sampler(config), representation_of(config, split, device)
        pixels = pixels_of(config.task, split, self.representation)
        self.measured = self.representation if pixels else dataclasses.replace(self.representation, autoencoder=None)
        self.training, self.last_step = config.training, config.training.steps
        self.reference = reference = pixels or split
        # Made here, so that wrong settings are found before any training; the statistics wait for the first measure.
        self.quality = Quality(
            reference.train.values,
            None if reference.held_out is None else reference.held_out.values,
            self.config.metrics,
            data_fingerprint=f"{reference.train.fingerprint()}/{len(reference.train)}",
            device=device,
            cache_dir=default_cache() / "statistics",
        )
        self.protocol = PROTOCOLS[self.config.protocol]
        self.scored = self.config.score_measure
        self.curve = {*self.config.curve_measures, self.scored}
        self.quality.check_names(self.config.curve_measures, "evaluation.curve_measures")
        self.quality.check_names([self.scored], "evaluation.score_measure")
        for name, measures in (("samples", self.quality.names), ("curve_samples", self.curve)):
            if getattr(self.config, name):
                self.quality.check_count(getattr(self.config, name), measures, f"evaluation.{name}")

    def decoded(self) -> str:
        """How pictures are made of latents, and what they are measured against; "" where they are not."""
        made_by, pixels = self.representation.autoencoder, self.measured.autoencoder is not None
        against = "the images that were encoded" if pixels else "the latents"
        return f"decoded by {made_by.folder}; measured against {against}" if made_by else ""

    def labels(self, numbers: range) -> Tensor | None:
        """Classes of the images of these numbers [n], drawn as often as in the training images, or all of theirs
        equally often, as the protocol says; None without."""
        if not self.classes or self.split.train.labels is None:
            return None
        labels = np.asarray(self.split.train.labels)
        labels = np.unique(labels) if self.protocol.even_classes else labels
        places = torch.rand(numbers.stop, generator=named_generator(self.config.seed, "classes")) * len(labels)
        return torch.from_numpy(labels)[places.long()[numbers.start :]]

    def generator(self, model: nn.Module) -> ImageGenerator:
        """What draws images with `model`."""
        device = next(model.parameters()).device
        return ImageGenerator(
            model,
            shape=self.split.train.shape,
            sampler=self.sampler,
            seed=self.config.seed,
            classes=self.classes,
            condition_dim=self.condition_dim,
            batch_size=self.config.batch_size,
            device=device,
            precision=self.training.precision_on(device),
            ranks=self.ranks,
            guide=self.guide,
        )

    def samples(self, model: nn.Module, numbers: range) -> Tensor:
        """Generate the images of these numbers: uint8 [n, C, H, W] on the CPU (latents that are not decoded float32);
        none on other ranks than the first."""
        found, done = torch.empty(0, *self.split.train.shape), 0
        if not numbers:
            return found
        with closing(Progress("score", len(numbers), unit="image")) as progress:
            for x0 in self.generator(model).batches(numbers, self.labels(numbers)):
                part = self.measured.decode(x0)
                if not done:
                    found = torch.empty((len(numbers), *part.shape[1:]), dtype=part.dtype)
                found[done : done + len(part)] = part
                done += len(part)
                progress.advance(len(part))
        return found

    def __call__(self, model: nn.Module, report: Callable[[str], None], *, step: int) -> dict[str, Any] | None:
        """Score `model` after `step` updates, by all measures after the last one, else by `curve_measures`, and draw
        samples/STEP.png."""
        full = step >= self.last_step
        return self.measure(model, report, full=full, picture=f"{step:08d}", film=full and self.config.video)

    def measure(
        self,
        model: nn.Module,
        report: Callable[[str], None],
        *,
        full: bool,
        picture: str | None = None,
        film: bool = False,
    ) -> dict[str, Any] | None:
        """Generate images with `model` and measure them.

        Args:
            model: the denoiser.
            report: takes a line for the user.
            full: all measures of `samples` images, or `curve_measures` of `curve_samples`.
            picture: name of a grid to draw in the folder samples, or None.
            film: whether to draw samples/forming.mp4.

        Returns:
            score (higher is better), measures (each with its floor), how they were made and by which protocol,
            seconds; None when no images are asked for.
        """
        began = time.perf_counter()
        count = self.config.samples if full else self.config.curve_samples
        protocol = self.protocol if full else PROTOCOLS["plain"]
        images = self.samples(model, range(max(count, self.config.grid if picture else 0)))
        result, shown = self._scored(images[:count], report, full=full), images[: self.config.grid].clone()
        del images  # of which there may be gigabytes
        draws = [] if result is None else [result["measures"]]
        for numbers in protocol.numbers(count)[1:] if count else ():
            measures = self._measured(self.samples(model, numbers))
            draws += [] if measures is None else [measures]

        def finished() -> dict[str, Any] | None:
            if picture and self.config.grid:
                try:
                    self.draw(model, shown, picture, film=film)
                except UserError as error:  # the measures are worth more
                    report(f"No pictures: {error}")
            if result is None:
                return None
            told = {"name": protocol.name, "says": self._says(protocol, count)}
            seconds = time.perf_counter() - began
            return {**result, "measures": of_draws(draws), "protocol": told, "seconds": seconds}

        return self.ranks.share(self._on_first(finished))

    def _on_first(self, work: Callable[[], T]) -> T | None:
        """What the first rank does and the others wait for; None on those."""
        return self.ranks.together(lambda: work() if self.ranks.first else None)

    def _scored(self, images: Tensor, report: Callable[[str], None], *, full: bool) -> dict[str, Any] | None:
        count = self.config.samples if full else self.config.curve_samples
        return self._on_first(lambda: self._measures(images, report, full=full)) if count else None

    def _measured(self, images: Tensor) -> dict[str, Any] | None:
        return self._on_first(lambda: self.quality.measure(images.numpy()))

    def _says(self, protocol: Protocol, count: int) -> str:
        train, whole, metrics = len(self.reference.train), self.reference.whole, self.config.metrics
        kind = "latents" if self.reference.train.latents else "images"
        of = f"all {train:,}" if train == whole else f"{train:,} of {whole:,}"
        against = f"against {of} training {kind}"
        against += f" and their mirror {kind}" if metrics.mirrored_reference else ", not mirrored"
        if metrics.reference is not None:
            against += f", the FID against the statistics of {Path(metrics.reference).name}"
        return described(protocol, count, seed=self.config.seed, conditional=bool(self.classes), against=against)

    def _measures(self, images: Tensor, report: Callable[[str], None], *, full: bool) -> dict[str, Any]:
        count = len(images)
        measures = self.quality.measure(images.numpy(), None if full else self.curve)
        # One count for all evaluations of a run: distances shrink with it, and checkpoints are compared by the score.
        few = self.config.curve_samples
        short = full and 2 <= few < count
        score = score_of(self.quality.measure(images[:few].numpy(), [self.scored]) if short else measures, self.scored)
        if not math.isfinite(score):
            report("The images could not be scored: a measure is not finite.")
        return {
            "score": score if math.isfinite(score) else 0.0,
            "score_from": self.scored,
            "images": count,
            "score_images": few if short else count,
            "measures": measures,
            **sampling_record(self.sampler.config),
            "network_evaluations": self.sampler.network_evaluations(),
            "guide": self.guide and {**self.guide.told, "evaluations": self.sampler.worse_evaluations()},
            "seed": self.config.seed,
        }

    def draw(self, model: nn.Module, images: Tensor, name: str, *, film: bool) -> None:
        """Write samples/NAME.png of `images` [n, C, H, W], and samples/forming.mp4 when asked for."""
        folder, images = self.run_dir / "samples", self.representation.pixels(images)
        scale = shown_scale(images.shape[-1])
        write_png(folder / f"{name}.png", grid(images, scale=scale), replace=True)
        if film:
            forming_video(
                folder / "forming.mp4",
                dataclasses.replace(self.generator(model), ranks=ALONE),
                indices=range(len(images)),
                labels=self.labels(range(len(images))),
                decode=self.representation.decode,
                scale=scale,
            )
