"""What turns images into feature vectors: the protocol, and a fixed random convolution net that needs no weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from policy_accel.errors import UserError


class FeatureExtractor(Protocol):
    """A fixed function from images to feature vectors.

    Attributes:
        name: how results name it.
        fingerprint: changes whenever the features would; statistics are cached under it.
        dimension: D, the number of features.
    """

    name: str
    fingerprint: str
    dimension: int

    def __call__(self, images: Tensor) -> Tensor:
        """Features [B, D] float32 of `images` [B, C, H, W] uint8, on the device of the images."""
        ...


@contextmanager
def full_precision(device: torch.device | str) -> Iterator[None]:
    """Within the block: no gradients, no autocast, no TF32, deterministic cuDNN.

    A training run may have allowed all of these; a measure has to come out the same whichever it chose.
    """
    matmul = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.no_grad(),
            torch.autocast(torch.device(device).type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)


VERSION = 1
WIDTHS = (32, 64, 96, 128)
SLOPE = 0.2


class RandomConvFeatures:
    """Features of a fixed random convolution net: means and deviations of its activations at four scales, D = 320.

    Random features tell distributions apart where no network trained on similar images is at hand (Naeem et al. 2020
    use them for that reason). The scale of a distance on them has no meaning of its own: compare it with the floor
    that held-out images give, and never with a FID. They are coarse: on colourful images brightness and colour weigh
    most, and faint noise or one missing class can pass unseen, which features of a trained network do see.

    Four stages of a 3x3 convolution (reflected edges) and a leaky ReLU, each followed by 2x2 averaging while the map is
    larger than 4x4. Three quarters of the filters sum to zero, so that brightness does not drown structure. Every
    stage gives the mean and the standard deviation over positions of half its channels. uint8 images are scaled to
    [-1, 1]; floating-point input (latents) is taken as it is.

    The weights come from the raw words of NumPy's PCG64, a stream that NumPy keeps as it is, through a Box-Muller
    transform: the same net on every version, machine and device.

    Args:
        channels: C, at least 1.
        resolution: height = width of the images, 8 to 1024.

    Raises:
        UserError: a size out of range.
    """

    name = "random_conv"
    dimension = sum(WIDTHS)

    def __init__(self, channels: int, resolution: int) -> None:
        if channels < 1 or not 8 <= resolution <= 1024:
            raise UserError(
                f"images of shape ({channels}, {resolution}, {resolution}) cannot be measured by random convolutions, "
                "which take 8 to 1024 pixels; set task.resolution to a size in between."
            )
        self.channels, self.resolution = channels, resolution
        self.fingerprint = f"random_conv-{VERSION}-{channels}x{resolution}"
        self._weights = _draw_weights(channels)

    def __call__(self, images: Tensor) -> Tensor:
        """Features [B, 320] float32 of `images` [B, C, H, W] uint8 or floating-point, on their device.

        Raises:
            ValueError: images of another shape than the net was made for.
        """
        if tuple(images.shape[1:]) != (self.channels, self.resolution, self.resolution):
            raise ValueError(f"images of shape {tuple(images.shape[1:])} for the features {self.fingerprint}")
        self._weights = [weight.to(images.device) for weight in self._weights]
        with full_precision(images.device):
            hidden = images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images.float()
            found = []
            for weight in self._weights:
                padded = F.pad(hidden, (1, 1, 1, 1), mode="reflect")
                hidden = F.leaky_relu(F.conv2d(padded, weight), SLOPE)
                deviation, mean = torch.std_mean(hidden[:, : len(weight) // 2], dim=(2, 3), correction=0)
                found += [mean, deviation]
                if hidden.shape[-1] > 4:
                    hidden = F.avg_pool2d(hidden, 2)
            return torch.cat(found, dim=1)


def _draw_weights(channels: int) -> list[Tensor]:
    """Filters [width, channels before, 3, 3] float32 of each stage: norm sqrt(2), of every four, three sum
    to 0."""
    stream = np.random.PCG64(int.from_bytes(hashlib.sha256(b"policy_accel random convolutions").digest(), "little"))
    weights = []
    for width in WIDTHS:
        filters = _normals(stream, width * channels * 9).reshape(width, channels, 3, 3)
        structure = np.arange(width) % 4 != 3
        filters[structure] -= filters[structure].mean(axis=(1, 2, 3), keepdims=True)
        filters *= math.sqrt(2) / np.sqrt((filters**2).sum(axis=(1, 2, 3), keepdims=True))
        weights.append(torch.from_numpy(filters.astype(np.float32)))
        channels = width
    return weights


def _normals(stream: np.random.PCG64, count: int) -> np.ndarray:
    """Standard normal numbers [count] float64 from the stream's raw 64-bit words."""
    words = np.asarray(stream.random_raw(2 * count), dtype=np.uint64) >> np.uint64(11)
    uniform = (words.astype(np.float64) + 0.5) * 2.0**-53
    normals: np.ndarray = np.sqrt(-2 * np.log(uniform[:count])) * np.cos(2 * np.pi * uniform[count:])
    return normals
