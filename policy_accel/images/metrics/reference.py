"""Statistics of a set of images under an extractor, and their cache on the disk."""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from policy_accel.data.images.subset import ArraySubset, ImageArray
from policy_accel.errors import UserError
from policy_accel.files import replacing
from policy_accel.images.metrics.features import FeatureExtractor
from policy_accel.images.metrics.frechet import Moments, MomentsAccumulator
from policy_accel.images.metrics.image_batches import chosen_indices, image_batch
from policy_accel.progress import Progress


@dataclass(frozen=True)
class Statistics:
    """What the measures need of a set of images.

    Attributes:
        moments: of the features of all images.
        features: [K, D] float32, of a random choice of the images.
    """

    moments: Moments
    features: Tensor


def statistics_of(
    images: ImageArray,
    extractor: FeatureExtractor,
    *,
    keep: int,
    batch_size: int,
    device: torch.device | str,
    shown: str | None = None,
    mirrored: bool = False,
) -> Statistics:
    """Statistics of the images [N, C, H, W], N at least 2.

    Args:
        images: the set.
        extractor: from images to features.
        keep: number of feature vectors to keep.
        batch_size: images at once.
        device: where to compute; the result stays there.
        shown: what the progress of it is called; None to show none.
        mirrored: the moments are those of the images and of their mirror images.
    """
    kept = chosen_indices(len(images), keep, "features")
    accumulator, features = MomentsAccumulator(), []
    progress = None if shown is None else Progress(shown, len(images), unit="image")
    for start in range(0, len(images), batch_size):
        end = min(start + batch_size, len(images))
        pictures = image_batch(images, slice(start, end), device)
        batch = extractor(pictures)
        accumulator.add(batch)
        if mirrored:
            accumulator.add(extractor(pictures.flip(3)))
        first, last = np.searchsorted(kept, [start, end])
        if last > first:
            features.append(batch[torch.from_numpy(kept[first:last] - start).to(batch.device)])
        if progress is not None:
            progress.advance(end - start)
    if progress is not None:
        progress.close()
    return Statistics(accumulator.moments(), torch.cat(features))


class Reference:
    """Statistics of the reference images under any extractor: computed once, kept, and cached on the disk under the
    fingerprints of data and extractor and the counts.

    Args:
        images: [N, C, H, W].
        given: moments by the name of their extractor, in place of those of the images, which are then not computed.
        mirrored: moments are those of the images and of their mirror images.
        batch_size, device: as for `statistics_of`.
        data_fingerprint: changes whenever the images do.
        cache_dir: folder of the cache.
    """

    def __init__(
        self,
        images: ImageArray,
        given: dict[str, Moments],
        *,
        mirrored: bool,
        batch_size: int,
        device: torch.device | str,
        data_fingerprint: str,
        cache_dir: Path,
    ) -> None:
        self.images, self.given, self.mirrored, self.batch_size = images, given, mirrored, batch_size
        self.device, self.data_fingerprint, self.cache_dir = device, data_fingerprint, cache_dir
        self._found: dict[str, Statistics] = {}

    def __call__(self, extractor: FeatureExtractor, keep: int) -> Statistics:
        """The moments, and at most `keep` feature vectors, which is the same in all calls for an extractor."""
        if extractor.name not in self._found:
            self._found[extractor.name] = self._statistics(extractor, keep)
        return self._found[extractor.name]

    def _statistics(self, extractor: FeatureExtractor, keep: int) -> Statistics:
        given, images, count = self.given.get(extractor.name), self.images, len(self.images)
        if given is not None:  # and no more images are looked at than have to be
            images = ArraySubset(images, chosen_indices(count, keep, "features"))
        mirrored = self.mirrored and given is None

        def compute() -> dict[str, np.ndarray]:
            found = statistics_of(
                images,
                extractor,
                keep=keep,
                batch_size=self.batch_size,
                device=self.device,
                shown=f"{extractor.name} of the reference images",
                mirrored=mirrored,
            )
            moments = {"mean": found.moments.mean, "covariance": found.moments.covariance, "features": found.features}
            return {name: tensor.cpu().numpy() for name, tensor in moments.items()}

        of = "all" if given is None else "chosen"
        key: tuple[str | int | float, ...] = (self.data_fingerprint, extractor.fingerprint, of, count, keep)
        key += ("mirrored",) if mirrored else ()
        size = extractor.dimension
        shapes = {"mean": (size,), "covariance": (size, size), "features": (min(keep, count), size)}
        arrays = cached_arrays(self.cache_dir, key, shapes, compute)
        mean, covariance, features = (torch.from_numpy(arrays[name]).to(self.device) for name in shapes)
        if given is not None:
            return Statistics(Moments(None, given.mean.to(self.device), given.covariance.to(self.device)), features)
        return Statistics(Moments(count * (2 if mirrored else 1), mean, covariance), features)


def cached_arrays(
    cache_dir: Path,
    key: tuple[str | int | float, ...],
    shapes: dict[str, tuple[int, ...]],
    compute: Callable[[], dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """The arrays of `compute`, from the file of `key` below `cache_dir` when it is there.

    A damaged file is made anew and a folder that cannot be written is done without; either is said on standard error.

    Args:
        cache_dir: folder of the cache, made when missing.
        key: all that the arrays depend on.
        shapes: name and shape of every array.
        compute: makes the arrays.
    """
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    path = cache_dir / f"reference-{digest}.npz"
    if path.exists():
        try:
            return _read(path, shapes)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            print(f"{path}: damaged ({error}), made anew.", file=sys.stderr, flush=True)
    arrays = compute()
    try:
        _write(path, arrays)
    except UserError as error:
        print(f"{error} Going on without the cache.", file=sys.stderr, flush=True)
    return arrays


def _read(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in shapes}
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} of shape {arrays[name].shape} is not finite or not of shape {shape}")
    return arrays


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Atomically, and over a damaged file or that of a run at the same time, whose content is the same."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
