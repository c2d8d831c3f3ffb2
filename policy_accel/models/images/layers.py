"""What the image networks share: doubling, the condition, initialisation, checks of their sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.models.config import ModelConfig, check_positive, check_probability
from policy_accel.models.layers import GroupNorm, SelfAttention

EPS = 1e-6


def upsample(x: Tensor) -> Tensor:
    """Double height and width by repeating each pixel: [B, C, H, W] -> [B, C, 2 H, 2 W]."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def condition_layer(condition_dim: int, width: int) -> nn.Linear | None:
    """The linear map of the condition [B, D] to [B, width], without bias so that the zero row is the null class."""
    return nn.Linear(condition_dim, width, bias=False) if condition_dim else None


def add_condition(embedding: Tensor, layer: nn.Linear | None, condition: Tensor | None) -> Tensor:
    """embedding [B, width] plus the mapped condition [B, D]; None stands for zeros.

    Raises:
        ValueError: a condition for a network built with condition_dim=0.
    """
    if condition is None:
        return embedding
    if layer is None:
        raise ValueError("a condition was given to a network that was built without one (condition_dim=0).")
    mapped: Tensor = layer(condition)
    return embedding + mapped


@torch.no_grad()
def initialise_uniform(module: nn.Module) -> None:
    """Glorot's uniform weights (variance 2 / (fan in + fan out)) and zero biases for a linear map or convolution.

    It is the initialisation of Ho et al. 2020 and of Song et al. 2021, whose "variance scaling, fan_avg" it equals.
    """
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def initialise_zero(*modules: nn.Linear | nn.Conv2d) -> None:
    """Zero weights and biases: the branch that the layers end starts silent."""
    for module in modules:
        nn.init.zeros_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def norm_groups(channels: int) -> int:
    """Groups of a normalisation over `channels`: 32, or fewer so that a group has at least four channels."""
    return min(32, channels // 4)


class ResidualBlock(nn.Module):
    """Two convolutions with the time embedding added between them, a residual path, and attention if `heads` is not 0:
    [B, C_in, H, W], [B, E] -> [B, C_out, H', W'].

    groups: of every normalisation; None for `norm_groups` of its channels. resample: halves or doubles the image; the
    first convolution and the residual path work at the new size. gain: factor on the residual sum and on the sum with
    attention; the root of 1/2 keeps their variance.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int,
        dropout: float,
        heads: int = 0,
        groups: int | None = None,
        resample: nn.Module | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.resample, self.gain = resample, gain
        groups_in, groups_out = (groups or norm_groups(channels) for channels in (in_channels, out_channels))
        self.norm_in = GroupNorm(groups_in, in_channels, eps=EPS)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embedding = nn.Linear(width, out_channels)
        self.norm_out = GroupNorm(groups_out, out_channels, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        projected = resample is not None or in_channels != out_channels
        self.residual = nn.Conv2d(in_channels, out_channels, 1) if projected else nn.Identity()
        self.attention = SelfAttention(out_channels, heads=heads, groups=groups_out, eps=EPS) if heads else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Transform x [B, C_in, H, W]; embedding [B, E] has passed its non-linearity."""
        hidden = F.silu(self.norm_in(x))
        if self.resample is not None:
            hidden, x = self.resample(hidden), self.resample(x)
        hidden = self.conv_in(hidden) + self.embedding(embedding)[:, :, None, None]
        hidden = self.conv_out(self.dropout(F.silu(self.norm_out(hidden))))
        x = self._sum(hidden, self.residual(x))
        return x if self.attention is None else self._sum(x, self.attention(x))

    def _sum(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b if self.gain == 1.0 else (a + b) * self.gain


@dataclass
class ImageUnetConfig(ModelConfig):
    """Sizes that the image U-Nets have in common."""

    channels: int = 128
    multipliers: list[int] = field(default_factory=lambda: [1, 2, 2, 2])
    """Channels of each resolution as multiples of `channels`, finest first; the image halves between them."""
    blocks: int = 2
    """Residual blocks at each resolution on the way down; one more on the way up."""
    attention_resolutions: list[int] = field(default_factory=lambda: [16])
    """Side lengths, in pixels, of the resolutions with attention; the middle always has it."""
    heads: int = 1
    dropout: float = 0.1

    def levels(self, resolution: int) -> list[tuple[int, int]]:
        """Channels of each resolution, finest first, and heads of its attention (0: none), for images of side
        `resolution`.

        Raises:
            UserError: sizes that are not positive, do not divide one another, or have no effect on such images.
        """
        channels, multipliers = self.channels, list(self.multipliers)
        check_positive(channels=channels, multipliers=multipliers, blocks=self.blocks, heads=self.heads)
        check_probability(dropout=self.dropout)
        if channels % 4 or channels % norm_groups(channels):
            raise UserError(
                f"model.channels={channels} cannot be normalised in groups; choose a multiple of 4 up to 128, or of 32."
            )
        if not multipliers:
            raise UserError("model.multipliers is empty; give one factor for each resolution, for example [1,2,2].")
        if resolution % 2 ** (len(multipliers) - 1):
            fitting = 1 + int(math.log2(resolution & -resolution))
            raise UserError(
                f"model.multipliers={multipliers} halves the image {len(multipliers) - 1} times, and a side of "
                f"{resolution} pixels can be halved {fitting - 1} times; give at most {fitting} multipliers or change "
                "the resolution."
            )
        sides = [resolution >> level for level in range(len(multipliers))]
        idle = [side for side in self.attention_resolutions if side not in sides]
        if idle:
            raise UserError(
                f"model.attention_resolutions names {idle[0]}, and images of {resolution} pixels are seen at "
                f"{', '.join(map(str, sides))}; choose among these, or [] for attention in the middle alone."
            )
        levels = [
            (channels * multiplier, self.heads if side in self.attention_resolutions else 0)
            for multiplier, side in zip(multipliers, sides, strict=True)
        ]
        if any(width % heads for width, heads in [*levels, (levels[-1][0], self.heads)] if heads):
            raise UserError(f"model.heads={self.heads} does not divide the channels of an attention layer; change one.")
        return levels
