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

from policy_accel.data.images.subset import ImageArray
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
) -> Statistics:
    """Statistics of the images [N, C, H, W], N at least 2.

    Args:
        images: the set.
        extractor: from images to features.
        keep: number of feature vectors to keep.
        batch_size: images at once.
        device: where to compute; the result stays there.
        shown: what the progress of it is called; None to show none.
    """
    kept = chosen_indices(len(images), keep, "features")
    accumulator, features = MomentsAccumulator(), []
    progress = None if shown is None else Progress(shown, len(images), unit="image")
    for start in range(0, len(images), batch_size):
        end = min(start + batch_size, len(images))
        batch = extractor(image_batch(images, slice(start, end), device))
        accumulator.add(batch)
        first, last = np.searchsorted(kept, [start, end])
        if last > first:
            features.append(batch[torch.from_numpy(kept[first:last] - start).to(batch.device)])
        if progress is not None:
            progress.advance(end - start)
    if progress is not None:
        progress.close()
    return Statistics(accumulator.moments(), torch.cat(features))


def cached_statistics(
    images: ImageArray,
    extractor: FeatureExtractor,
    *,
    keep: int,
    batch_size: int,
    device: torch.device | str,
    data_fingerprint: str,
    cache_dir: Path,
) -> Statistics:
    """`statistics_of`, kept on the disk under the fingerprints of data and extractor and the counts.

    Args:
        images, extractor, keep, batch_size, device: as for `statistics_of`.
        data_fingerprint: changes whenever the images do.
        cache_dir: folder of the cache.
    """
    count = len(images)

    def compute() -> dict[str, np.ndarray]:
        shown = f"{extractor.name} of the reference images"
        found = statistics_of(images, extractor, keep=keep, batch_size=batch_size, device=device, shown=shown)
        moments = {"mean": found.moments.mean, "covariance": found.moments.covariance, "features": found.features}
        return {name: tensor.cpu().numpy() for name, tensor in moments.items()}

    size = extractor.dimension
    shapes = {"mean": (size,), "covariance": (size, size), "features": (min(keep, count), size)}
    arrays = cached_arrays(cache_dir, (data_fingerprint, extractor.fingerprint, "all", count, keep), shapes, compute)
    mean, covariance, features = (torch.from_numpy(arrays[name]).to(device) for name in shapes)
    return Statistics(Moments(count, mean, covariance), features)


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
