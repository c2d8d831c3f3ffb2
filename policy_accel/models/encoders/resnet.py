"""ResNet-18 (He et al. 2016) with group normalisation or none, and the encoder of Diffusion Policy made of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.models.encoders.config import EncoderConfig
from policy_accel.models.encoders.pretrained import DEVIATION, MEAN
from policy_accel.models.encoders.spatial_softmax import SpatialSoftmax
from policy_accel.models.layers import GroupNorm
from policy_accel.models.layout import laid_as

REDUCTION = 32  # the stem, its pooling and three stages halve the frame each, rounding up
STAGES = 4
FEW_CHANNELS = 16
"""Below as many, `Projection` on the CPU leaves no stride to oneDNN."""


class Projection(nn.Conv2d):
    """A 1 x 1 convolution, square strides: [B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)]."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x [B, C_in, H, W]."""
        if x.is_cuda or self.in_channels >= FEW_CHANNELS:
            return super().forward(x)
        # oneDNN 3.13, which torch 2.15 has, writes beyond its memory as it takes the weights' gradient with a stride
        # and images of few channels that lie channels last, and the process dies (its issue 6035).
        step = self.stride[0]
        return F.conv2d(x[:, :, ::step, ::step], self.weight, self.bias)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut: [B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)]."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, group_channels: int | None) -> None:
        super().__init__()
        bias = group_channels is None
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=bias)
        self.norm1 = _norm(out_channels, group_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        self.norm2 = _norm(out_channels, group_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                Projection(in_channels, out_channels, 1, stride, bias=bias), _norm(out_channels, group_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Transform x [B, C_in, H, W]."""
        hidden = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x))


class ResNet18(nn.Module):
    """Feature maps [B, 8 * width, ceil(H / 32), ceil(W / 32)] of images [B, C, H, W].

    It is torchvision's resnet18 up to the last pooling, with group for batch normalisation: parameters come in the same
    order, and width=64 has the same shapes.

    Args:
        channels: C.
        width: channels of the stem and the first stage; must be a multiple of group_channels.
        group_channels: channels of one group of the normalisation; None for convolutions with a bias in its place, into
            which batch normalisation with fixed statistics can be folded.
    """

    def __init__(self, channels: int, *, width: int, group_channels: int | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, 2, padding=3, bias=group_channels is None)
        self.norm1 = _norm(width, group_channels)
        blocks = []
        for stage in range(STAGES):
            out_channels = width * 2**stage
            in_channels = out_channels // 2 if stage else width
            stride = 2 if stage else 1
            blocks += [
                ResidualBlock(in_channels, out_channels, stride=stride, group_channels=group_channels),
                ResidualBlock(out_channels, out_channels, stride=1, group_channels=group_channels),
            ]
        self.blocks = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps of x [B, C, H, W]."""
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(laid_as(x, self.conv1.weight)))), 3, stride=2, padding=1)
        maps: Tensor = self.blocks(x)
        return maps


def _norm(channels: int, group_channels: int | None) -> nn.Module:
    return nn.Identity() if group_channels is None else GroupNorm(channels // group_channels, channels)


class ResNetEncoder(nn.Module):
    """ResNet-18, spatial softmax, linear map: images [B, C, H, W] -> [B, feature_dim].

    With `config.weights` the trunk is without normalisation and sees images as ImageNet's were given to it.

    Args:
        config: sizes.
        size: (H, W) of the images.
        channels: C.

    Raises:
        UserError: images so small that the spatial softmax would see one position only, or not in colour where weights
            are for these.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, config: EncoderConfig, *, size: tuple[int, int], channels: int) -> None:
        super().__init__()
        if min(size) <= REDUCTION:
            raise UserError(
                f"encoder.name=resnet18 reduces frames by {REDUCTION}, and of {size[0]} x {size[1]} px one position is "
                f"left; use frames and an encoder.crop of more than {REDUCTION} px."
            )
        resnet = config.resnet
        self.pretrained = config.weights is not None
        if self.pretrained:
            if channels != len(MEAN):
                raise UserError(
                    f"encoder.weights={config.weights} is for frames in red, green and blue, and these have {channels} "
                    "channels; set encoder.weights=null."
                )
            mean, deviation = (torch.tensor(values).reshape(-1, 1, 1) for values in (MEAN, DEVIATION))
            self.register_buffer("scale", 0.5 / deviation, persistent=False)
            self.register_buffer("shift", (0.5 - mean) / deviation, persistent=False)
        map_size = (-(-size[0] // REDUCTION), -(-size[1] // REDUCTION))
        group_channels = None if self.pretrained else resnet.group_channels
        self.trunk = ResNet18(channels, width=resnet.width, group_channels=group_channels)
        self.pool = SpatialSoftmax(resnet.width * 2 ** (STAGES - 1), map_size, resnet.keypoints)
        self.head = nn.Linear(2 * resnet.keypoints, config.feature_dim)
        self.rectify = resnet.rectify

    def forward(self, images: Tensor) -> Tensor:
        """Features [B, feature_dim] of images [B, C, H, W] in [-1, 1], or as `encoder.statistics` normalises them."""
        if self.pretrained:
            images = torch.addcmul(self.shift, images, self.scale)  # (frames / 255 - mean) / deviation
        features: Tensor = self.head(self.pool(self.trunk(images)))
        return features.relu() if self.rectify else features
