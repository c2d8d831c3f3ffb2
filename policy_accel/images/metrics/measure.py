"""All quality measures of a set of generated images, each beside the floor that real held-out images give."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policy_accel.data.images.subset import ImageArray
from policy_accel.errors import UserError, did_you_mean
from policy_accel.images.metrics.config import MetricsConfig
from policy_accel.images.metrics.copies import CopyCheck
from policy_accel.images.metrics.extractors import distance_name, extractors_for, kind_of
from policy_accel.images.metrics.features import FeatureExtractor
from policy_accel.images.metrics.frechet import frechet_distance
from policy_accel.images.metrics.image_batches import chosen_indices, image_batch
from policy_accel.images.metrics.neighbours import manifold_measures
from policy_accel.images.metrics.noise import uniform_noise
from policy_accel.images.metrics.reference import Reference, Statistics, statistics_of
from policy_accel.images.metrics.sliced import sliced_wasserstein
from policy_accel.images.metrics.statistics_file import given_moments

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
    many, and a distance's floor is then too high, since distances of this kind shrink with the count. Where no image is
    held out, the floors of Fréchet distances are those of some reference images (half of them at most) to the others,
    and the other measures have none.

    Statistics of the reference are computed at the first call, kept, and cached on the disk; floors are kept for each
    count.

    Args:
        reference: [N, C, H, W] uint8, or float32/float16 latents; may be memory-mapped.
        held_out: [M, C, H, W] of the same kind, none of them in the reference; None where there are none.
        config: settings.
        data_fingerprint: changes whenever the reference does.
        device: where to compute.
        cache_dir: folder for the statistics of the reference.

    Raises:
        UserError: sets too small, images that an extractor cannot take, weights that cannot be read.
    """

    def __init__(
        self,
        reference: ImageArray,
        held_out: ImageArray | None,
        config: MetricsConfig,
        *,
        data_fingerprint: str,
        device: torch.device | str,
        cache_dir: Path,
    ) -> None:
        self.reference, self.held_out, self.config = reference, held_out, config
        self.device = torch.device(device)
        parts = {"training set": reference} | ({} if held_out is None else {"held-out set": held_out})
        if held_out is not None and kind_of(held_out) != kind_of(reference):
            raise UserError(
                f"the held-out images are {kind_of(held_out)}, those of the training set {kind_of(reference)}; "
                "both must be of one kind, so check the test split of task.data."
            )
        for what, images in parts.items():
            if len(images) <= config.neighbours:
                raise UserError(
                    f"evaluation.metrics.neighbours={config.neighbours}: the {what} has {len(images)} images and must "
                    "have more than that; lower it or use a larger set."
                )
        self.extractors = extractors_for(reference, config)
        self._reference = Reference(
            reference,
            given_moments(config.reference, self.extractors),
            mirrored=config.mirrored_reference,
            batch_size=config.batch_size,
            device=self.device,
            data_fingerprint=data_fingerprint,
            cache_dir=cache_dir,
        )
        self._floors: dict[tuple[int, frozenset[str]], dict[str, dict[str, Any]]] = {}
        self._noise: dict[tuple[int, frozenset[str]], dict[str, float]] = {}
        self._copies = CopyCheck(
            reference,
            most=config.neighbour_samples,
            quantile=config.copy_quantile,
            data_fingerprint=data_fingerprint,
            device=self.device,
            cache_dir=cache_dir,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """All measures of these images: those of `CHEAP` and `MANIFOLD`, fid and fd_resnet20/56 where weights are
        given, and registered ones."""
        distances = [distance_name(extractor) for extractor in self.extractors]
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
        """Measures of `samples` [n, C, H, W], of the kind of the reference, n at least 2: all `names` of this set, or
        those given.

        Returns:
            {measure: {"value", "floor", "samples", "reference", "floor_samples", "floor_reference", "better"}}, plain
            numbers and strings, None for a floor that there is not; a Fréchet distance has "dimension" too, that of its
            features; precision, recall, density and coverage are on the
            features named under "features", and have under "noise" what images of pure noise get.

        Raises:
            UserError: too few samples for the neighbour count, or values that are not finite.
        """
        wanted = frozenset(self.names if names is None else names)
        self.check_count(len(samples), wanted)
        floors, values = self._floors_for(len(samples), wanted), self._values(samples, wanted, what="samples")
        noise = self._noise_for(len(samples), wanted & {*MANIFOLD})
        return {
            name: {
                **found,
                "floor": floors.get(name, {}).get("value"),
                "floor_samples": floors.get(name, {}).get("samples"),
                "floor_reference": floors.get(name, {}).get("reference"),
                **({"noise": noise[name]} if name in noise else {}),
            }
            for name, found in values.items()
        }

    def _floors_for(self, samples: int, wanted: frozenset[str]) -> dict[str, dict[str, Any]]:
        """As `_values`, of as many real images as there are samples, or all there are."""
        count = min(samples, len(self.reference) // 2 if self.held_out is None else len(self.held_out))
        if (count, wanted) not in self._floors:
            if self.held_out is None:
                self._floors[count, wanted] = self._floors_within(count, wanted) if count > 1 else {}
            else:
                images = self.held_out[chosen_indices(len(self.held_out), count, "floor")]
                self._floors[count, wanted] = self._values(images, wanted, what="held-out images")
        return self._floors[count, wanted]

    def _noise_for(self, samples: int, wanted: frozenset[str]) -> dict[str, float]:
        """{measure: its value for as many images of noise}, of those of `MANIFOLD`."""
        key = min(samples, self.config.neighbour_samples), wanted
        if wanted and key not in self._noise:
            found = self._values(uniform_noise(self.reference, key[0]), wanted, what="images of noise")
            self._noise[key] = {name: one["value"] for name, one in found.items()}
        return self._noise.get(key, {})

    def _floors_within(self, count: int, wanted: Collection[str]) -> dict[str, dict[str, Any]]:
        """Fréchet distances of `count` reference images to the others."""
        images, floors = self.reference[chosen_indices(len(self.reference), count, "floor")], {}
        for extractor in self.extractors:
            distance = distance_name(extractor)
            if distance not in wanted or extractor.name in self._reference.given:
                continue
            part = taken = self._statistics_of(images, extractor, wanted, "training images").moments
            if self.config.mirrored_reference:
                taken = self._statistics_of(images, extractor, wanted, "training images", mirrored=True).moments
            rest = self._reference_statistics(extractor).moments.without(taken)
            floors[distance] = {"value": frechet_distance(part, rest), "samples": count, "reference": rest.count}
        return floors

    def _values(self, images: np.ndarray, wanted: Collection[str], *, what: str) -> dict[str, dict[str, Any]]:
        """{measure: {"value", "samples", "reference", ...}} of images, which are `what`, in the order of `names`."""
        values = dict[str, dict[str, Any]]()
        for extractor in self.extractors:
            first, best = extractor is self.extractors[0], extractor is self.extractors[-1]
            distance = distance_name(extractor)
            own = {distance, *(["sliced_wasserstein"] if first else []), *(MANIFOLD if best else [])}
            if not own & {*wanted}:
                continue
            reference = self._reference_statistics(extractor)
            found = self._statistics_of(images, extractor, wanted, what)
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
                    "dimension": extractor.dimension,
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
        count = min(len(images), len(self.reference))
        ours, theirs = (
            image_batch(of, chosen_indices(len(of), count, "metrics"), self.device) for of in (images, self.reference)
        )
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

    def _kept(self, extractor: FeatureExtractor) -> int:
        """How many feature vectors the measures need of each side."""
        first = extractor is self.extractors[0]
        return max(self.config.neighbour_samples, self.config.sliced_samples if first else 0)

    def _statistics_of(
        self,
        images: ImageArray,
        extractor: FeatureExtractor,
        wanted: Collection[str],
        what: str,
        *,
        mirrored: bool = False,
    ) -> Statistics:
        return statistics_of(
            images,
            extractor,
            keep=self._kept(extractor),
            batch_size=self.config.batch_size,
            device=self.device,
            shown=None if {*wanted} <= {*CHEAP} else f"{extractor.name} of {what}",
            mirrored=mirrored,
        )

    def _reference_statistics(self, extractor: FeatureExtractor) -> Statistics:
        return self._reference(extractor, self._kept(extractor))


def _thinned(features: Tensor, most: int) -> Tensor:
    """At most `most` of the rows."""
    if len(features) <= most:
        return features
    return features[torch.from_numpy(chosen_indices(len(features), most, "thinned")).to(features.device)]
