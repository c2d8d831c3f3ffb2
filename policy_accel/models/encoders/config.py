"""Settings of the observation encoders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from policy_accel.errors import UserError, one_of, refuse_idle
from policy_accel.models.encoders.augmentation import AugmentationConfig
from policy_accel.models.encoders.pretrained import WIDTH

ENCODERS = ("resnet18", "vit_small")
LARGE, MARGIN = 4 / 3, 8 / 7
"""Sides of a frame in units of the crop: what is larger than the first is resized to the second, as 96 px are to 84."""


@dataclass
class ResNetConfig:
    """Sizes of the ResNet-18 encoder; the defaults are Diffusion Policy's."""

    width: int = 64
    """Channels of the stem and of the first stage; they double in each of the three stages after it."""
    group_channels: int | None = 16
    """Channels of one group of the group normalisation; must divide width. null for none, as where batch normalisation
    was folded into the convolutions."""
    keypoints: int = 32
    """Key points of the spatial softmax, two numbers each."""
    rectify: bool = False
    """Whether negative features become 0 at the end, as in robomimic and LeRobot."""


@dataclass
class ViTConfig:
    """Sizes of the vision transformer; the defaults are ViT-S (Touvron et al. 2021, table 1) for frames of 84 px."""

    patch: int = 14
    """Side of a patch in px; must divide both sides of the (cropped) frame."""
    dim: int = 384
    """Width: numbers of the vector of a patch."""
    depth: int = 12
    """Transformer blocks."""
    heads: int = 6
    """Attention heads; must divide dim."""
    mlp_ratio: float = 4.0
    """Width of the hidden layer of the MLP, in units of dim."""


@dataclass
class EncoderConfig:
    """How observations with camera frames are encoded; the defaults are Diffusion Policy's for frames of 96 px."""

    name: str = "resnet18"
    """resnet18 (GroupNorm, spatial softmax) or vit_small."""
    resize: list[int] | None = None
    """Height and width in px that frames are brought to before the crop. null leaves frames as they are of which the
    crop sees most, and brings the others, with a side of more than 4/3 of the crop, to 8/7 of it (84: 96 x 96)."""
    crop: int | None = 84
    """Side in px of the square that the network sees: anywhere in training, in the centre otherwise. null for the whole
    frame."""
    crop_width: int | None = None
    """Width in px where a policy of another library sees no square, whose height is crop; it cannot be trained here."""
    statistics: dict[str, Any] = field(default_factory=dict)
    """Picture -> [means, deviations] of its channels in [0, 1], by which its frames are normalised; others are brought
    to [-1, 1]."""
    share_cameras: bool = False
    """One network for all cameras instead of one for each."""
    feature_dim: int = 64
    """Numbers per camera and frame."""
    weights: str | None = None
    """File (.safetensors or .pth) with weights of torchvision's resnet18, which the trunk begins with; null for random
    ones. Batch normalisation is folded into the convolutions."""
    lr_factor: float = 1.0
    """Learning rate of the trunk (all before the spatial softmax or, of the transformer, before the last linear map) in
    units of that of the rest. 0 freezes it: nothing is differentiated there."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    resnet: ResNetConfig = field(default_factory=ResNetConfig)
    vit: ViTConfig = field(default_factory=ViTConfig)

    def frame_size(self, shape: Sequence[int]) -> tuple[int, int]:
        """Height and width that frames of `shape` (H, W, C) are brought to before the crop."""
        if self.resize is not None:
            return self.resize[0], self.resize[1]
        height, width = shape[:2]
        if self.crop is None or max(height, width) <= self.crop * LARGE:
            return height, width
        side = round(self.crop * MARGIN)
        return min(height, side), min(width, side)

    def check(self) -> None:
        """Raise UserError when a value is out of range, unknown, or has no effect with this encoder."""
        one_of("encoder.name", self.name, ENCODERS)
        sizes = {"encoder.feature_dim": self.feature_dim}
        if self.crop is not None:
            sizes["encoder.crop"] = self.crop
        if self.crop_width is not None:
            sizes["encoder.crop_width"] = self.crop_width
            if self.crop is None:
                raise UserError(
                    f"encoder.crop_width={self.crop_width} has no effect with encoder.crop=null; leave it at null."
                )
        if self.resize is not None and (len(self.resize) != 2 or min(self.resize) < (self.crop or 1)):
            raise UserError(
                f"encoder.resize={list(self.resize)} must be height and width in px, not below encoder.crop="
                f"{'null' if self.crop is None else self.crop}, as [96,128]."
            )
        if self.name == "resnet18":
            refuse_idle(self.vit, "encoder.vit", set(), "encoder.name=resnet18")
            resnet = self.resnet
            if self.weights is not None:
                used = {"width", "keypoints", "rectify"}
                refuse_idle(resnet, "encoder.resnet", used, "encoder.weights (no normalisation is left)")
            sizes |= {
                f"encoder.resnet.{key}": value
                for key, value in vars(resnet).items()
                if key != "rectify" and value is not None
            }
        else:
            refuse_idle(self.resnet, "encoder.resnet", set(), "encoder.name=vit_small")
            vit = self.vit
            sizes |= {f"encoder.vit.{key}": value for key, value in vars(vit).items() if key != "mlp_ratio"}
        self._check_weights()
        for picture, values in self.statistics.items():
            _check_statistics(picture, values)
        self.augmentation.check(self.crop)
        for name, value in sizes.items():
            if value < 1:
                raise UserError(f"{name}={value} must be at least 1.")
        if self.name == "resnet18" and resnet.group_channels is not None and resnet.width % resnet.group_channels:
            raise UserError(
                f"encoder.resnet.group_channels={resnet.group_channels} does not divide "
                f"encoder.resnet.width={resnet.width}; change one."
            )
        if self.name == "vit_small":
            if vit.dim % vit.heads:
                raise UserError(f"encoder.vit.heads={vit.heads} does not divide encoder.vit.dim={vit.dim}; change one.")
            if not vit.mlp_ratio * vit.dim >= 1:
                raise UserError(f"encoder.vit.mlp_ratio={vit.mlp_ratio} must be positive, for example 4.")

    def _check_weights(self) -> None:
        if self.weights is not None and self.name != "resnet18":
            raise UserError(
                f"encoder.weights={self.weights} is for encoder.name=resnet18, and encoder.name={self.name}; set "
                "encoder.weights=null."
            )
        if self.weights is not None and self.resnet.width != WIDTH:
            raise UserError(
                f"encoder.resnet.width={self.resnet.width} does not fit encoder.weights={self.weights}, whose network "
                f"has {WIDTH} channels there; set encoder.resnet.width={WIDTH}."
            )
        if self.weights is not None and self.statistics:
            raise UserError(
                f"encoder.statistics={self.statistics} has no effect with encoder.weights={self.weights}, whose "
                "network sees frames as ImageNet's; leave it at {}."
            )
        if not 0 <= self.lr_factor < math.inf:
            raise UserError(f"encoder.lr_factor={self.lr_factor} must not be negative; 0 freezes, 1 is the plain rate.")
        if self.lr_factor == 0 and self.weights is None:
            raise UserError(
                "encoder.lr_factor=0 freezes what encoder.weights=null leaves at random; name the weights, or raise it."
            )


def _check_statistics(picture: str, values: Any) -> None:
    """Raise UserError unless they are two lists of as many numbers, the second of positive ones."""
    lists = isinstance(values, list | tuple) and len(values) == 2 and all(isinstance(v, list | tuple) for v in values)
    numbers = lists and all(isinstance(number, int | float) for row in values for number in row)
    if not numbers or len(values[0]) != len(values[1]) or not all(0 < number < math.inf for number in values[1]):
        raise UserError(
            f"encoder.statistics.{picture}={values} must be [means, deviations], a number for each channel and "
            "deviations above 0, as [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]."
        )
