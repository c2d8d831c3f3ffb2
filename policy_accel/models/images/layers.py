"""What the image networks share: doubling, the condition, initialisation, checks of their sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.models.config import ModelConfig, check_positive, check_probability
from policy_accel.models.embedding import angles
from policy_accel.models.layers import GroupNorm, SelfAttention

EPS = 1e-6
UNWANTED = "a condition was given to a network that was built without one (condition_dim=0)."


def upsample(x: Tensor) -> Tensor:
    """Double height and width by repeating each pixel: [B, C, H, W] -> [B, C, 2 H, 2 W]."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class TimeEmbedding(nn.Module):
    """Cosines and sines of t at `features / 2` frequencies from 1 to nearly 1/10000, mixed by two layers: [B] ->
    [B, width]."""

    frequencies: Tensor

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        half = features // 2
        exponents = torch.arange(half, dtype=torch.float64) * (-math.log(10_000.0) / half)
        self.register_buffer("frequencies", exponents.exp().float(), persistent=False)
        self.mix = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Embed t [B], or [B, n], see `angles`."""
        at = angles(t, self.frequencies)
        embedding: Tensor = self.mix(torch.cat([at.cos(), at.sin()], dim=-1))
        return embedding


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
        raise ValueError(UNWANTED)
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
    """Two convolutions with the time embedding between them, a residual path, and attention if `heads` is not 0:
    [B, C_in, H, W], [B, E] -> [B, C_out, H', W'].

    groups: of every normalisation; None for `norm_groups` of its channels. resample: halves or doubles the image; the
    first convolution and the residual path work at the new size. projected: whether the residual path is convolved
    where the image is resampled, as it is where its channels change. scaled: the embedding scales and shifts what the
    second normalisation gives; else it is added before. gain: factor on the residual sum and on the sum with attention;
    the root of 1/2 keeps their variance. eps: of every normalisation.
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
        projected: bool = True,
        scaled: bool = False,
        gain: float = 1.0,
        eps: float = EPS,
    ) -> None:
        super().__init__()
        self.resample, self.scaled, self.gain = resample, scaled, gain
        groups_in, groups_out = (groups or norm_groups(channels) for channels in (in_channels, out_channels))
        self.norm_in = GroupNorm(groups_in, in_channels, eps=eps)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embedding = nn.Linear(width, 2 * out_channels if scaled else out_channels)
        self.norm_out = GroupNorm(groups_out, out_channels, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        convolved = in_channels != out_channels or (resample is not None and projected)
        self.residual = nn.Conv2d(in_channels, out_channels, 1) if convolved else nn.Identity()
        self.attention = SelfAttention(out_channels, heads=heads, groups=groups_out, eps=eps) if heads else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Transform x [B, C_in, H, W]; embedding [B, E] has passed its non-linearity."""
        hidden = F.silu(self.norm_in(x))
        if self.resample is not None:
            hidden, x = self.resample(hidden), self.resample(x)
        hidden, told = self.conv_in(hidden), self.embedding(embedding)[:, :, None, None]
        if self.scaled:
            scale, shift = told.chunk(2, dim=1)
            hidden = self.norm_out(hidden) * (1.0 + scale) + shift
        else:
            hidden = self.norm_out(hidden + told)
        hidden = self.conv_out(self.dropout(F.silu(hidden)))
        x = self._sum(hidden, self.residual(x))
        return x if self.attention is None else self._sum(x, self.attention(x))

    def _sum(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b if self.gain == 1.0 else (a + b) * self.gain


@dataclass
class UnetSizes(ModelConfig):
    """Sizes that the image U-Nets have in common."""

    channels: int = 128
    """Channels that `multipliers` multiply."""
    multipliers: list[int] = field(default_factory=lambda: [1, 2, 2, 2])
    """Channels of each resolution as multiples of `channels`, finest first; the image halves between them."""
    blocks: int = 2
    """Residual blocks at each resolution on the way down; one more on the way up."""
    attention_resolutions: list[int] = field(default_factory=lambda: [16])
    """Side lengths, in pixels, of the resolutions with attention; the middle always has it."""
    dropout: float = 0.1
    """Share of activations that training drops inside of a residual block."""

    def heads_of(self, channels: int) -> int:
        """Heads of the attention over so many channels.

        Raises:
            UserError: they do not divide the channels.
        """
        raise NotImplementedError

    def levels(self, resolution: int) -> list[tuple[int, int]]:
        """Channels of each resolution, finest first, and heads of its attention (0: none), for images of side
        `resolution`.

        Raises:
            UserError: sizes that are not positive, do not divide one another, or have no effect on such images.
        """
        channels, multipliers = self.channels, list(self.multipliers)
        check_positive(channels=channels, multipliers=multipliers, blocks=self.blocks)
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
        self.heads_of(channels * multipliers[-1])  # of the middle
        return [
            (channels * multiplier, self.heads_of(channels * multiplier) if side in self.attention_resolutions else 0)
            for multiplier, side in zip(multipliers, sides, strict=True)
        ]


@dataclass
class ImageUnetConfig(UnetSizes):
    """The sizes of U-Nets whose attention has the same number of heads everywhere."""

    heads: int = 1
    """Heads of each attention; must divide the channels of each resolution that has it."""

    def heads_of(self, channels: int) -> int:
        """See `UnetSizes.heads_of`."""
        check_positive(heads=self.heads)
        if channels % self.heads:
            raise UserError(f"model.heads={self.heads} does not divide the channels of an attention layer; change one.")
        return self.heads


def heads_by_width(channels: int, head_channels: int) -> int:
    """Heads of `head_channels` each over `channels`.

    Raises:
        UserError: they do not divide the channels.
    """
    check_positive(head_channels=head_channels)
    if channels % head_channels:
        raise UserError(
            f"model.head_channels={head_channels} does not divide the {channels} channels of an attention layer; "
            "change one."
        )
    return channels // head_channels
