"""Distances in pixels from samples to their nearest training images, which show copies that no other measure sees."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from policy_accel.images.metrics.features import full_precision
from policy_accel.images.metrics.image_batches import image_batch
from policy_accel.images.metrics.neighbours import ROWS, squared_distances

COLUMNS = 8192
LARGEST = 32
"""Larger images are averaged down to this height and width first: a copy stays a copy, and time and memory bounded."""


def nearest_distances(
    samples: np.ndarray, training: np.ndarray, *, device: torch.device | str, own_indices: np.ndarray | None = None
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


def _exact(rows: Tensor, training: np.ndarray, nearest: np.ndarray, device: torch.device) -> Tensor:
    """Distance [n] float64 of each row to the training image found; the search itself rounds, and a copy is 0."""
    found = []
    for first in range(0, len(rows), ROWS):
        block = slice(first, first + ROWS)
        difference = rows[block].double() - _flat(image_batch(training, nearest[block], device)).double()
        found.append(difference.square().mean(1).sqrt())
    return torch.cat(found)
