"""Sets of images on the host, read batch by batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from policy_accel.data.images.subset import ImageArray
from policy_accel.training.randomness import derive_seed


def image_batch(images: ImageArray, indices: np.ndarray | slice, device: torch.device | str) -> Tensor:
    """The images at `indices` [B] int64 of a set [N, C, H, W], which may be memory-mapped, as a tensor on `device`."""
    return torch.from_numpy(np.array(images[indices])).to(device)  # a copy: torch cannot take what is read-only


def chosen_indices(count: int, most: int, *names: str | int) -> np.ndarray:
    """`most` of the indices 0 .. count - 1, drawn without replacement and sorted (all when there are no more); the same
    for the same names.

    Sets are often sorted by class, so their first images would not do.
    """
    if most >= count:
        return np.arange(count)
    generator = np.random.Generator(np.random.PCG64(derive_seed(0, "chosen images", *names)))
    return np.sort(generator.permutation(count)[:most])
