"""Images of pure noise: a measure on which they do as well as real ones tells nothing."""

from __future__ import annotations

import numpy as np

from policy_accel.data.images.subset import ImageArray
from policy_accel.training.randomness import derive_seed


def uniform_noise(like: ImageArray, count: int) -> np.ndarray:
    """`count` images [count, C, H, W] of the shape and type of `like` [N, C, H, W], always the same ones: every value
    is uniform, of uint8 over all grey levels, of latents over the range of the first image's."""
    generator = np.random.Generator(np.random.PCG64(derive_seed(0, "images of noise")))
    shape = (count, *like.shape[1:])
    if like.dtype == np.uint8:
        return generator.integers(0, 256, shape, dtype=np.uint8)
    first = np.asarray(like[:1])
    return generator.uniform(first.min(), first.max(), shape).astype(like.dtype)
