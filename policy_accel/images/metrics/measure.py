"""All quality measures of a set of generated images, each beside the floor that real held-out images give."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policy_accel.errors import UserError, did_you_mean
from policy_accel.images.metrics.config import MetricsConfig
from policy_accel.images.metrics.copies import nearest_distances
from policy_accel.images.metrics.features import FeatureExtractor, RandomConvFeatures
from policy_accel.images.metrics.frechet import frechet_distance
from policy_accel.images.metrics.image_batches import chosen_indices, image_batch
from policy_accel.images.metrics.inception import ENVIRONMENT_VARIABLE, inception_features
from policy_accel.images.metrics.neighbours import manifold_measures
from policy_accel.images.metrics.reference import Statistics, cached_arrays, cached_statistics, statistics_of
from policy_accel.images.metrics.resnet import resnet_features
from policy_accel.images.metrics.sliced import sliced_wasserstein

METRICS: dict[str, tuple[Callable[[Tensor, Tensor], float], str]] = {}
"""Measures that others registered, by name: a function of images and as many training images, and which is better."""
CHEAP = ("fd_random_conv", "sliced_wasserstein", "copies")
"""Measures that take seconds for a thousand images."""
SCORED = CHEAP[0]
MANIFOLD = ("precision", "recall", "density", "coverage")


class Quality:
    """Measures sets of samples against one reference set.

    The reference is what the model learns from (FID's convention); the floor of a measure is its value for real images
    that the reference does not hold, at the same count as the samples. Where there are fewer, `floor_samples` tells how
    many, and a distance's floor is then too high, since distances of this kind shrink with the count.

    Statistics of the reference are computed at the first call, kept, and cached on the disk; floors are kept for each
    count.

    Args:
        reference: [N, C, H, W] uint8, or float32/float16 latents; may be memory-mapped.
        held_out: [M, C, H, W] of the same kind, none of them in the reference.
        config: settings.
        data_fingerprint: changes whenever the reference does.
        device: where to compute.
        cache_dir: folder for the statistics of the reference.

    Raises:
        UserError: sets too small, images that an extractor cannot take, weights that cannot be read.
    """

    def __init__(
        self,
        reference: np.ndarray,
        held_out: np.ndarray,
        config: MetricsConfig,
        *,
        data_fingerprint: str,
        device: torch.device | str,
        cache_dir: Path,
    ) -> None:
        self.reference, self.held_out, self.config = reference, held_out, config
        self.device, self.cache_dir, self.data_fingerprint = torch.device(device), cache_dir, data_fingerprint
        if held_out.shape[1:] != reference.shape[1:] or _latents(held_out) != _latents(reference):
            raise UserError(
                f"the held-out images are {_kind(held_out)}, those of the training set {_kind(reference)}; "
                "both must be of one kind, so check the test split of task.data."
            )
        for count, what in ((len(reference), "training set"), (len(held_out), "held-out set")):
            if count <= config.neighbours:
                raise UserError(
                    f"evaluation.metrics.neighbours={config.neighbours}: the {what} has {count} images and must have "
                    "more than that; lower it or use a larger set."
                )
        self.extractors = _extractors(reference, config)
        self._statistics: dict[str, Statistics] = {}
        self._floors: dict[tuple[int, frozenset[str]], dict[str, dict[str, Any]]] = {}
        self._copy_distance: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All measures of these images: those of `CHEAP` and `MANIFOLD`, fid and fd_resnet20/56 where weights are
        given, and registered ones."""
        distances = [_distance(extractor) for extractor in self.extractors]
        return tuple(dict.fromkeys([*distances[:1], *CHEAP, *distances[1:], *MANIFOLD, *METRICS]))

    def check_names(self, names: Collection[str], setting: str) -> None:
        """Raise UserError unless these images can be measured by all `names`, which `setting` asks for."""
        for name in names:
            if name in self.names:
                continue
            weights = "inception" if name == "fid" else "resnet" if name.startswith("fd_resnet") else None
            if weights is None:
                raise UserError(f"{setting}: '{name}' is no measure of these images; {did_you_mean(name, self.names)}")
            raise UserError(
                f"{setting}: '{name}' needs the weights of a feature network; give evaluation.metrics.{weights}=PATH."
            )

    def check_count(self, count: int, names: Collection[str], setting: str = "evaluation.samples") -> None:
        """Raise UserError unless `count` images are enough for the measures `names`."""
        least = self.config.neighbours + 1 if {*names} & {*MANIFOLD} else 2
        if count < least:
            raise UserError(
                f"{setting}={count}: these measures need at least {least} "
                f"(evaluation.metrics.neighbours={self.config.neighbours}); raise it."
            )

    def measure(self, samples: np.ndarray, names: Collection[str] | None = None) -> dict[str, Any]:
        """Measures of `samples` [n, C, H, W], of the kind of the reference, n from 2 to N: all `names` of this set, or
        those given.

        Returns:
            {measure: {"value", "floor", "samples", "reference", "floor_samples", "floor_reference", "better"}}, plain
            numbers and strings; precision, recall, density and coverage are on the features named under "features".

        Raises:
            UserError: too few samples for the neighbour count, or values that are not finite.
        """
        wanted = frozenset(self.names if names is None else names)
        self.check_count(len(samples), wanted)
        floor_count = min(len(samples), len(self.held_out))
        if (floor_count, wanted) not in self._floors:
            chosen = chosen_indices(len(self.held_out), floor_count, "floor")
            self._floors[floor_count, wanted] = self._values(self.held_out[chosen], wanted, what="held-out images")
        floors = self._floors[floor_count, wanted]
        values = self._values(samples, wanted, what="samples")
        return {
            name: {
                **found,
                "floor": floors[name]["value"],
                "floor_samples": floors[name]["samples"],
                "floor_reference": floors[name]["reference"],
            }
            for name, found in values.items()
        }

    def _values(self, images: np.ndarray, wanted: Collection[str], *, what: str) -> dict[str, dict[str, Any]]:
        """{measure: {"value", "samples", "reference", ...}} of images, which are `what`, in the order of `names`."""
        config, values = self.config, dict[str, dict[str, Any]]()
        for extractor in self.extractors:
            first, best = extractor is self.extractors[0], extractor is self.extractors[-1]
            distance = _distance(extractor)
            own = {distance, *(["sliced_wasserstein"] if first else []), *(MANIFOLD if best else [])}
            if not own & {*wanted}:
                continue
            keep = max(config.neighbour_samples, config.sliced_samples if first else 0)
            reference = self._reference_statistics(extractor, keep)
            shown = None if {*wanted} <= {*CHEAP} else f"{extractor.name} of {what}"
            found = statistics_of(
                images, extractor, keep=keep, batch_size=config.batch_size, device=self.device, shown=shown
            )
            if not bool(torch.isfinite(found.moments.covariance).all()):
                raise UserError(
                    "the samples hold NaN or infinite values, so the model has diverged; use an earlier checkpoint."
                )
            if distance in wanted:
                values[distance] = {
                    "value": frechet_distance(found.moments, reference.moments),
                    "samples": found.moments.count,
                    "reference": reference.moments.count,
                    "better": "lower",
                }
            if first and "sliced_wasserstein" in wanted:
                values["sliced_wasserstein"] = self._sliced(found.features, reference.features)
            if best and {*wanted} & {*MANIFOLD}:
                values |= self._manifold(found.features, reference.features, extractor.name)
        if "copies" in wanted:
            values["copies"] = self._copies(images)
        values |= self._registered(images, wanted)
        return {name: values[name] for name in self.names if name in wanted}

    def _registered(self, images: np.ndarray, wanted: Collection[str]) -> dict[str, dict[str, Any]]:
        metrics = {name: metric for name, metric in METRICS.items() if name in wanted}
        if not metrics:
            return {}
        rows = chosen_indices(len(self.reference), len(images), "metrics")
        ours, theirs = image_batch(images, slice(None), self.device), image_batch(self.reference, rows, self.device)
        counts = {"samples": len(ours), "reference": len(theirs)}
        return {
            name: {"value": float(metric(ours, theirs)), **counts, "better": better}
            for name, (metric, better) in metrics.items()
        }

    def _sliced(self, features: Tensor, reference: Tensor) -> dict[str, Any]:
        most = self.config.sliced_samples
        ours, theirs = _thinned(features, most), _thinned(reference, most)
        value = sliced_wasserstein(ours, theirs, projections=self.config.projections)
        return {"value": value, "samples": len(ours), "reference": len(theirs), "better": "lower"}

    def _manifold(self, features: Tensor, reference: Tensor, name: str) -> dict[str, dict[str, Any]]:
        most = self.config.neighbour_samples
        ours, theirs = _thinned(features, most), _thinned(reference, most)
        found = manifold_measures(ours, theirs, self.config.neighbours)
        counts = {"samples": len(ours), "reference": len(theirs), "better": "higher", "features": name}
        return {measure: {"value": value, **counts} for measure, value in found.items()}

    def _copies(self, images: np.ndarray) -> dict[str, Any]:
        """Share of images that are as near to a training image as `copy_quantile` of those are to another one."""
        limit = self._copy_limit()
        chosen = chosen_indices(len(images), self.config.neighbour_samples, "copies")
        distances = nearest_distances(images[chosen], self.reference, device=self.device)
        return {
            "value": float((distances <= limit).double().mean()),
            "samples": len(chosen),
            "reference": len(self.reference),
            "better": "lower",
            "distance": limit,
            "quantile": self.config.copy_quantile,
        }

    def _copy_limit(self) -> float:
        """Quantile of the distances of training images to their nearest others, root mean square per value."""
        if self._copy_distance is None:
            chosen = chosen_indices(len(self.reference), self.config.neighbour_samples, "copies")

            def compute() -> dict[str, np.ndarray]:
                images = self.reference[chosen]
                found = nearest_distances(images, self.reference, device=self.device, own_indices=chosen)
                return {"distances": found.cpu().numpy()}

            key = (self.data_fingerprint, "pixels-1", len(self.reference), len(chosen))
            arrays = cached_arrays(self.cache_dir, key, {"distances": (len(chosen),)}, compute)
            self._copy_distance = float(np.quantile(arrays["distances"], self.config.copy_quantile))
        return self._copy_distance

    def _reference_statistics(self, extractor: FeatureExtractor, keep: int) -> Statistics:
        if extractor.name not in self._statistics:
            self._statistics[extractor.name] = cached_statistics(
                self.reference,
                extractor,
                keep=keep,
                batch_size=self.config.batch_size,
                device=self.device,
                data_fingerprint=self.data_fingerprint,
                cache_dir=self.cache_dir,
            )
        return self._statistics[extractor.name]


def _distance(extractor: FeatureExtractor) -> str:
    """What the Fréchet distance on an extractor's features is called."""
    return "fid" if extractor.name == "inception" else f"fd_{extractor.name}"


def _extractors(reference: np.ndarray, config: MetricsConfig) -> list[FeatureExtractor]:
    """The feature networks for these images; the last is the best judge of what a picture shows."""
    channels, height, width = reference.shape[1:]
    if height != width:
        raise UserError(f"images of {height}x{width} pixels cannot be measured, only square ones; crop them first.")
    found: list[FeatureExtractor] = [RandomConvFeatures(channels, height)]
    inception = config.inception or (None if _latents(reference) else os.environ.get(ENVIRONMENT_VARIABLE))
    for name, path in (("resnet", config.resnet), ("inception", inception)):
        if path and (_latents(reference) or channels not in (1, 3)):
            raise UserError(
                f"evaluation.metrics.{name}={path}: takes images with 1 or 3 channels, not {_kind(reference)}; "
                "leave it at null."
            )
    if config.resnet:
        if height != 32:
            raise UserError(
                f"evaluation.metrics.resnet={config.resnet}: takes images of 32x32 pixels, not {height}x{width}; leave "
                "it at null."
            )
        found.append(resnet_features(config.resnet))
    if inception:
        found.append(inception_features(inception))
    return found


def _thinned(features: Tensor, most: int) -> Tensor:
    """At most `most` of the rows."""
    if len(features) <= most:
        return features
    return features[torch.from_numpy(chosen_indices(len(features), most, "thinned")).to(features.device)]


def _kind(images: np.ndarray) -> str:
    """Type and shape of one image, such as uint8 (3, 32, 32)."""
    return f"{images.dtype} {images.shape[1:]}"


def _latents(images: np.ndarray) -> bool:
    return images.dtype != np.uint8


def score(result: dict[str, Any], measure: str = SCORED) -> float:
    """One number to choose checkpoints by, higher is better: floor / value of a measure of which lower is better, of
    another value / floor, at most 1; 1 / (1 + distance from the floor) where that is not positive.

    1 means that by this measure the samples are as good as held-out real images. Better than that is chance or copying,
    not quality, and counts for no more: look at `copies`.
    """
    found = result[measure]
    value, floor, lower = found["value"], found["floor"], found["better"] == "lower"
    behind = value - floor if lower else floor - value
    if behind <= 0.0:
        return 1.0
    if floor <= 0.0:
        return float(1.0 / (1.0 + behind))
    return float(floor / value if lower else value / floor)


def table(result: dict[str, Any]) -> str:
    """The result of `Quality.measure` as lines for a terminal: every value beside its floor and their ratio."""
    lines = [f"{'measure':<20}{'value':>12}{'real images':>13}{'ratio':>9}{'samples':>9}  better"]
    for name, found in result.items():
        ratio = found["value"] / found["floor"] if found["floor"] else math.nan
        shown = f"{ratio:>8.2f}x" if math.isfinite(ratio) else f"{'-':>9}"
        note = f" ({found['features']})" if "features" in found else ""
        fewer = f", real: {found['floor_samples']}" if found["floor_samples"] != found["samples"] else ""
        lines.append(
            f"{name:<20}{found['value']:>12.5g}{found['floor']:>13.5g}{shown}{found['samples']:>9}  "
            f"{found['better']}{note}{fewer}"
        )
    return "\n".join(lines)
