"""Sets of images, on the host or on a device, read batch by batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from policy_accel.training.randomness import derive_seed

Images = Tensor | np.ndarray
"""[N, C, H, W]: uint8 images or floating-point latents; an array may be memory-mapped."""


def image_batch(images: Images, indices: np.ndarray | slice | None, device: torch.device | str) -> Tensor:
    """The images at `indices` [B] int64 (all when None) as a tensor [B, C, H, W] on `device`."""
    if isinstance(images, Tensor):
        if indices is None:
            return images.to(device)
        where = torch.from_numpy(indices).to(images.device) if isinstance(indices, np.ndarray) else indices
        return images[where].to(device)
    chosen = images if indices is None else images[indices]
    return torch.from_numpy(np.array(chosen)).to(device)  # a copy: torch cannot take what is read-only


def chosen_indices(count: int, most: int, *names: str | int) -> np.ndarray:
    """`most` of the indices 0 .. count - 1, drawn without replacement and sorted (all when there are no more); the same
    for the same names.

    Sets are often sorted by class, so their first images would not do.
    """
    if most >= count:
        return np.arange(count)
    generator = np.random.Generator(np.random.PCG64(derive_seed(0, "chosen images", *names)))
    return np.sort(generator.permutation(count)[:most])


def floating(images: Images) -> bool:
    """Whether these are latents."""
    return images.dtype != torch.uint8 if isinstance(images, Tensor) else images.dtype != np.uint8
