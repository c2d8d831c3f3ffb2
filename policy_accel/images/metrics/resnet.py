"""Features and class predictions of the small residual nets for CIFAR-10 (He et al. 2016)."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.files import explained
from policy_accel.images.metrics.features import full_precision

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WIDTHS = (16, 32, 64)
EPSILON = 1e-5
SIZE = 32
"""Pixels a side of the images that it was trained on."""


class ResNetFeatures:
    """The 64 pooled features of a CIFAR ResNet of depth 6 n + 2: three stages of n basic blocks with 16, 32 and 64
    channels, shortcuts that subsample and fill new channels with zeros (option A of section 4.2).

    A Fréchet distance on them is called FD-ResNet20 or FD-ResNet56 by the depth. It is not the FID and says most about
    the ten classes of CIFAR-10.

    Args:
        weights: name -> array as in torchvision-style state dicts: conv1.weight, bn1.*, layer1.0.conv1.weight and
            so on; a classifier behind them is left out.
        digest: of the weights file.

    Raises:
        KeyError, ValueError: an array is missing or has another shape.
    """

    dimension = WIDTHS[-1]

    def __init__(self, weights: dict[str, np.ndarray], digest: str) -> None:
        self.blocks = sum(name.startswith("layer1.") and name.endswith(".conv1.weight") for name in weights)
        self.depth = 6 * self.blocks + 2
        self.name = f"resnet{self.depth}"
        self.fingerprint = f"resnet-1-{digest}"
        self._tensors = _folded(weights, self.blocks)
        self._tensors["mean"] = torch.tensor(MEAN).view(3, 1, 1)
        self._tensors["deviation"] = torch.tensor(DEVIATION).view(3, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Features [B, 64] float32 of `images` [B, 1 or 3, N, N] uint8, on their device; resized to 32 x 32."""
        tensors = self._tensors = {name: tensor.to(images.device) for name, tensor in self._tensors.items()}
        with full_precision(images.device):
            pixels = images.expand(-1, 3, -1, -1).float() / 255
            if pixels.shape[-1] != SIZE:
                pixels = F.interpolate(pixels, (SIZE, SIZE), mode="bilinear", antialias=True)
            hidden = (pixels - tensors["mean"]) / tensors["deviation"]
            hidden = F.relu(self._convolve(hidden, "conv1", 1))
            for stage, width in enumerate(WIDTHS):
                for block in range(self.blocks):
                    stride = 2 if stage and not block else 1
                    prefix = f"layer{stage + 1}.{block}"
                    inner = F.relu(self._convolve(hidden, f"{prefix}.conv1", stride))
                    inner = self._convolve(inner, f"{prefix}.conv2", 1)
                    new = (width - hidden.shape[1]) // 2
                    shortcut = F.pad(hidden[:, :, ::stride, ::stride], (0, 0, 0, 0, new, new))
                    hidden = F.relu(inner + shortcut)
            return hidden.mean(dim=(2, 3))

    def _convolve(self, hidden: Tensor, name: str, stride: int) -> Tensor:
        weight, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
        return F.conv2d(hidden, weight, bias, stride=stride, padding=1)


def resnet_features(path: str | Path) -> ResNetFeatures:
    """The ResNet with the weights of the npz file `path` (plain arrays; nothing is unpickled).

    Raises:
        UserError: the file is missing, cannot be read, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"evaluation.metrics.resnet={path}: is not a file; give the npz file with the weights of a CIFAR ResNet, "
            "or leave it at null."
        )
    with explained(path, "read"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        with np.load(path, allow_pickle=False) as file:
            return ResNetFeatures({name: file[name] for name in file.files}, digest)
    except (ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"evaluation.metrics.resnet={path}: does not hold the weights of a CIFAR ResNet ({error}); give an npz "
            "file with arrays conv1.weight, bn1.weight, layer1.0.conv1.weight and so on."
        ) from error


def _folded(weights: dict[str, np.ndarray], blocks: int) -> dict[str, Tensor]:
    """Convolutions with the batch normalisation that follows each folded in."""
    if not blocks:
        raise ValueError("it has no array layer1.0.conv1.weight")
    names = {"conv1": ("bn1", 3, WIDTHS[0])}
    for stage, width in enumerate(WIDTHS):
        for block in range(blocks):
            before = WIDTHS[stage - 1] if stage and not block else width
            names[f"layer{stage + 1}.{block}.conv1"] = (f"layer{stage + 1}.{block}.bn1", before, width)
            names[f"layer{stage + 1}.{block}.conv2"] = (f"layer{stage + 1}.{block}.bn2", width, width)
    tensors = {}
    for name, (norm, before, width) in names.items():
        kernel = _array(weights, f"{name}.weight", (width, before, 3, 3))
        scale, shift, mean, variance = (
            _array(weights, f"{norm}.{part}", (width,)) for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = scale / np.sqrt(variance + EPSILON)
        tensors[f"{name}.weight"] = torch.from_numpy((kernel * scale[:, None, None, None]).astype(np.float32))
        tensors[f"{name}.bias"] = torch.from_numpy((shift - mean * scale).astype(np.float32))
    return tensors


def _array(weights: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of that name in float64, if it has the shape."""
    found = np.asarray(weights[name], dtype=np.float64)
    if found.shape != shape:
        raise ValueError(f"{name} has shape {found.shape} instead of {shape}")
    return found
