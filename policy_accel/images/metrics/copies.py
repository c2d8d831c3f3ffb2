"""Copies of training images, which no other measure sees, by the distances in pixels to the nearest of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from policy_accel.data.images.subset import ImageArray
from policy_accel.images.metrics.features import full_precision
from policy_accel.images.metrics.image_batches import chosen_indices, image_batch
from policy_accel.images.metrics.neighbours import ROWS, squared_distances
from policy_accel.images.metrics.reference import cached_arrays

COLUMNS = 8192
LARGEST = 32
"""Larger images are averaged down to this height and width first: a copy stays a copy, and time and memory bounded."""


class CopyCheck:
    """Which share of images are copies of training images.

    An image is one when it is as near to a training image as a share of those are to another one; the distance is
    computed once, and cached.

    Args:
        training: [N, C, H, W].
        most: at most this many images of each side are looked at.
        quantile: that share.
        data_fingerprint: changes whenever the training images do.
        device: where to compute.
        cache_dir: folder of the cache.
    """

    def __init__(
        self,
        training: ImageArray,
        *,
        most: int,
        quantile: float,
        data_fingerprint: str,
        device: torch.device,
        cache_dir: Path,
    ) -> None:
        self.training, self.most, self.quantile = training, most, quantile
        self.data_fingerprint, self.device, self.cache_dir = data_fingerprint, device, cache_dir
        self._limit: float | None = None

    def __call__(self, images: np.ndarray) -> dict[str, Any]:
        """The measure of `images` [n, C, H, W], of the type and shape of the training images."""
        limit = self._distance()
        chosen = chosen_indices(len(images), self.most, "copies")
        distances = nearest_distances(images[chosen], self.training, device=self.device)
        return {
            "value": float((distances <= limit).double().mean()),
            "samples": len(chosen),
            "reference": len(self.training),
            "better": "lower",
            "distance": limit,
            "quantile": self.quantile,
        }

    def _distance(self) -> float:
        """Quantile of the distances of training images to their nearest others, root mean square per value."""
        if self._limit is None:
            chosen = chosen_indices(len(self.training), self.most, "copies")

            def compute() -> dict[str, np.ndarray]:
                images = self.training[chosen]
                found = nearest_distances(images, self.training, device=self.device, own_indices=chosen)
                return {"distances": found.cpu().numpy()}

            key = (self.data_fingerprint, "pixels-1", len(self.training), len(chosen))
            arrays = cached_arrays(self.cache_dir, key, {"distances": (len(chosen),)}, compute)
            self._limit = float(np.quantile(arrays["distances"], self.quantile))
        return self._limit


def nearest_distances(
    samples: ImageArray, training: ImageArray, *, device: torch.device | str, own_indices: np.ndarray | None = None
) -> Tensor:
    """Distance [n] float64 of each sample, as it is or mirrored left to right, to its nearest training image.

    The distance is the root mean square difference of the values: grey levels 0 to 255 for uint8, latent units else.

    Args:
        samples: [n, C, H, W].
        training: [N, C, H, W] of the same type and shape.
        device: where to compute.
        own_indices: [n] int64, where the samples themselves stand in `training`: not their own neighbours.
    """
    device = torch.device(device)
    with full_precision(device):
        upright = image_batch(samples, slice(None), device)
        rows = torch.cat([_flat(upright), _flat(upright.flip(3))])
        own = None if own_indices is None else torch.from_numpy(np.concatenate([own_indices] * 2)).to(device)
        smallest = torch.full((len(rows),), torch.inf, device=device)
        nearest = torch.zeros(len(rows), dtype=torch.int64, device=device)
        for start in range(0, len(training), COLUMNS):
            columns = _flat(image_batch(training, slice(start, start + COLUMNS), device))
            places = torch.arange(start, start + len(columns), device=device)
            for first in range(0, len(rows), ROWS):
                block = slice(first, first + ROWS)
                distances = squared_distances(rows[block], columns)
                if own is not None:
                    distances.masked_fill_(own[block, None] == places[None, :], torch.inf)
                least, position = distances.min(1)
                closer = least < smallest[block]
                nearest[block] = torch.where(closer, places[position], nearest[block])
                smallest[block] = torch.where(closer, least, smallest[block])
        exact = _exact(rows, training, nearest.cpu().numpy(), device)
        return exact.view(2, -1).amin(0)


def _flat(images: Tensor) -> Tensor:
    """Images [B, C, H, W] as vectors [B, D] float32, uint8 centred at 0, at most `LARGEST` high and wide."""
    values = images.float() - 127.5 if images.dtype == torch.uint8 else images.float()
    height, width = values.shape[2:]
    if max(height, width) > LARGEST:
        values = F.adaptive_avg_pool2d(values, (min(height, LARGEST), min(width, LARGEST)))
    return values.flatten(1)


def _exact(rows: Tensor, training: ImageArray, nearest: np.ndarray, device: torch.device) -> Tensor:
    """Distance [n] float64 of each row to the training image found; the search itself rounds, and a copy is 0."""
    found = []
    for first in range(0, len(rows), ROWS):
        block = slice(first, first + ROWS)
        difference = rows[block].double() - _flat(image_batch(training, nearest[block], device)).double()
        found.append(difference.square().mean(1).sqrt())
    return torch.cat(found)
