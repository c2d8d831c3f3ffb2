"""Weights of a ResNet-18 that was trained on ImageNet, from a local file in the layout of torchvision's resnet18."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.files import explained

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue in [0, 1], by which torchvision's networks have their input normalised."""
WIDTH = 64
EPSILON = 1e-5
"""That of torch's batch normalisation."""
NORM = ("weight", "bias", "running_mean", "running_var")
LEFT_OUT = ("fc.", "num_batches_tracked")
"""The classifier, and a count that fixed statistics do not need."""
HOW_TO_GET = "give torchvision's resnet18 as .pth or .safetensors, or leave encoder.weights at null"


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state of a `ResNet18` with width 64 and no normalisation, from the file `path`; no code is unpickled.

    Taken are the 20 convolutions; the batch normalisation after each is folded into it with the file's statistics,
    which are then fixed (in float64: weight * s and bias - mean * s with s = weight / sqrt(variance + 1e-5)). The
    classifier is left out.

    Args:
        path: .safetensors, or else what torch.save wrote, with tensors alone in it.

    Raises:
        UserError: the file is missing, cannot be read, or holds other tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"encoder.weights={path} is not a file; {HOW_TO_GET}.")
    try:
        return folded(_tensors(path))
    except ValueError as error:
        raise UserError(f"encoder.weights={path} does not hold a ResNet-18: {error}; {HOW_TO_GET}.") from error


def _tensors(path: Path) -> Mapping[str, Tensor]:
    with explained(path, "read"):
        content = path.read_bytes()
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(content)
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader falls over damaged files in many ways
        reason = str(error).splitlines()[0] if isinstance(error, safetensors.SafetensorError) else "not tensors alone"
        raise ValueError(f"it cannot be read ({reason})") from error
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        raise ValueError("it is no dictionary of tensors")
    return found


def folded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The convolutions of torchvision's resnet18, batch normalisation folded in, by our names.

    Raises:
        ValueError: a tensor is missing, of another shape, not finite, or one too many.
    """
    left, state = dict(tensors), dict[str, Tensor]()
    for ours, (convolution, norm, shape) in layers().items():
        kernel = _take(left, f"{convolution}.weight", shape)
        scale, shift, mean, variance = (_take(left, f"{norm}.{part}", shape[:1]) for part in NORM)
        if (variance < 0).any():
            raise ValueError(f"{norm}.running_var is negative")
        scale = scale / (variance + EPSILON).sqrt()
        state[f"{ours}.weight"] = (kernel * scale[:, None, None, None]).float()
        state[f"{ours}.bias"] = (shift - mean * scale).float()
    more = [name for name in left if not name.startswith(LEFT_OUT[0]) and not name.endswith(LEFT_OUT[1])]
    if more:
        raise ValueError(f"it has {more[0]} too")
    return state


def layers() -> dict[str, tuple[str, str, tuple[int, ...]]]:
    """Our name of each convolution -> torchvision's, that of the normalisation after it, the shape of its weight."""
    layers: dict[str, tuple[str, str, tuple[int, ...]]] = {"conv1": ("conv1", "bn1", (WIDTH, 3, 7, 7))}
    before = WIDTH
    for number in range(8):
        stage, place = divmod(number, 2)
        ours, theirs, width = f"blocks.{number}", f"layer{stage + 1}.{place}", WIDTH * 2**stage
        layers[f"{ours}.conv1"] = (f"{theirs}.conv1", f"{theirs}.bn1", (width, before, 3, 3))
        layers[f"{ours}.conv2"] = (f"{theirs}.conv2", f"{theirs}.bn2", (width, width, 3, 3))
        if before != width:
            shortcut = f"{theirs}.downsample"
            layers[f"{ours}.shortcut.0"] = (f"{shortcut}.0", f"{shortcut}.1", (width, before, 1, 1))
        before = width
    return layers


def _take(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor of that name in float64, which is taken out, if it has the shape."""
    if name not in tensors:
        raise ValueError(f"{name} is missing")
    found = tensors.pop(name)
    if not found.is_floating_point() or found.is_meta or found.layout is not torch.strided:
        raise ValueError(f"{name} is no plain tensor of real numbers")
    found = found.double()
    if found.shape != shape:
        raise ValueError(f"{name} has shape {tuple(found.shape)} instead of {shape}")
    if not found.isfinite().all():
        raise ValueError(f"{name} is not finite")
    return found
