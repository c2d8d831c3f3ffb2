"""The U-Net of "Denoising Diffusion Probabilistic Models" (Ho et al. 2020, appendix B)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policy_accel.errors import UserError, one_of
from policy_accel.models.config import check_positive
from policy_accel.models.denoiser import Denoiser, hidden_matrices
from policy_accel.models.embedding import SinusoidalEmbedding
from policy_accel.models.images.layers import (
    EPS,
    ImageUnetConfig,
    ResidualBlock,
    add_condition,
    condition_layer,
    heads_by_width,
    initialise_uniform,
    initialise_zero,
    norm_groups,
    upsample,
)
from policy_accel.models.layers import GroupNorm, SelfAttention
from policy_accel.models.layout import laid_as

PADDINGS = ("below", "around")


@dataclass
class DdpmConfig(ImageUnetConfig):
    """U-Net of DDPM; the defaults are the published CIFAR-10 net (35.7 M parameters at 3 x 32 x 32).

    Where there is attention, it follows each residual block.
    """

    name: str = "ddpm"
    head_channels: int | None = None
    """Channels of a head of attention, in place of `heads`."""
    groups: int | None = None
    """Of every normalisation; by default 32, or fewer so that a group has at least four channels."""
    eps: float = EPS
    """Added to the variance in every normalisation."""
    padding: str = "below"
    """Where the image is padded before it is halved: below (and on the right), as published, or around, as diffusers
    does by default."""
    frequency_shift: int = 1
    """1, or 0 for frequencies of the time embedding that end one step before 1/10000, as diffusers' do by default."""

    def heads_of(self, channels: int) -> int:
        """See `UnetSizes.heads_of`."""
        if self.head_channels is None:
            return super().heads_of(channels)
        return heads_by_width(channels, self.head_channels)

    def levels(self, resolution: int) -> list[tuple[int, int]]:
        """See `UnetSizes.levels`."""
        one_of("model.padding", self.padding, PADDINGS)
        one_of("model.frequency_shift", str(self.frequency_shift), ("0", "1"))
        if not self.eps > 0.0:
            raise UserError(f"model.eps={self.eps} must be above 0.")
        if self.groups is not None:
            check_positive(groups=self.groups)
            if self.channels % self.groups:
                raise UserError(
                    f"model.groups={self.groups} does not divide model.channels={self.channels}; give a divisor of it."
                )
        return super().levels(resolution)

    @property
    def norm_groups(self) -> int:
        """Groups of every normalisation."""
        return norm_groups(self.channels) if self.groups is None else self.groups


class Downsample(nn.Conv2d):
    """Halve height and width by a strided convolution: [B, C, H, W] -> [B, C, H / 2, W / 2]."""

    def __init__(self, channels: int, padding: str) -> None:
        # The published net pads on the right and below only (TensorFlow's "SAME" with stride 2).
        self.below = padding == "below"
        super().__init__(channels, channels, 3, stride=2, padding=0 if self.below else 1)

    def forward(self, x: Tensor) -> Tensor:
        """Halve x [B, C, H, W]."""
        return super().forward(F.pad(x, (0, 1, 0, 1)) if self.below else x)


class Upsample(nn.Conv2d):
    """Double height and width and smooth by a convolution: [B, C, H, W] -> [B, C, 2 H, 2 W]."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Double x [B, C, H, W]."""
        return super().forward(upsample(x))


class DdpmUnet(Denoiser):
    """Image denoiser: U-Net with attention at low resolutions, conditioned on t and on a vector.

    Args:
        config: sizes.
        channels: C of the images (or latents).
        resolution: H = W of the images.
        condition_dim: entries of the condition (classes, one-hot), 0 for none. A linear map of it is added to the
            time embedding, as class embeddings are by Dhariwal & Nichol 2021.
        out_channels: of what it returns, where that is more than a prediction of the C channels; None for C.

    Raises:
        UserError: settings that do not fit one another or the images.
    """

    def __init__(
        self,
        config: DdpmConfig,
        *,
        channels: int,
        resolution: int,
        condition_dim: int = 0,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        levels = config.levels(resolution)
        groups, width = config.norm_groups, 4 * config.channels
        self.time = SinusoidalEmbedding(config.channels, config.frequency_shift)
        self.embed = nn.Sequential(nn.Linear(config.channels, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = condition_layer(condition_dim, width)

        block = partial(ResidualBlock, width=width, groups=groups, dropout=config.dropout, eps=config.eps)
        self.input = nn.Conv2d(channels, config.channels, 3, padding=1)
        current = config.channels
        skips = [current]
        self.down = nn.ModuleList()
        for level, (outputs, heads) in enumerate(levels):
            for _ in range(config.blocks):
                self.down.append(block(current, outputs, heads=heads))
                current = outputs
                skips.append(current)
            if level < len(levels) - 1:
                self.down.append(Downsample(current, config.padding))
                skips.append(current)
        self.middle = nn.ModuleList([block(current, current, heads=config.heads_of(current)), block(current, current)])
        self.up = nn.ModuleList()
        for level, (outputs, heads) in reversed(list(enumerate(levels))):
            for _ in range(config.blocks + 1):
                self.up.append(block(current + skips.pop(), outputs, heads=heads))
                current = outputs
            if level > 0:
                self.up.append(Upsample(current))
        self.norm = GroupNorm(groups, current, eps=config.eps)
        self.output = nn.Conv2d(current, out_channels or channels, 3, padding=1)
        self._initialise()

    def matrices(self) -> set[str]:
        """See `Denoiser.matrices`: all but those of time, condition, input and output."""
        return hidden_matrices(self, "embed", "condition", "input", "output")

    def _initialise(self) -> None:
        """As published: Glorot's weights, and zeros for the last layer of every residual branch and of the net.

        Queries, keys and values are three layers there, so each third of theirs is initialised by itself.
        """
        self.apply(initialise_uniform)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                initialise_zero(module.conv_out)
            elif isinstance(module, SelfAttention):
                for projection in module.qkv.weight.chunk(3):
                    nn.init.xavier_uniform_(projection)
                initialise_zero(module.out)
        initialise_zero(self.output)
        if self.condition is not None:
            nn.init.normal_(self.condition.weight)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict [B, C, H, W] float32 from x of that shape, t [B] and condition [B, condition_dim] (None: zeros)."""
        x = laid_as(x, self.input.weight)
        embedding = F.silu(add_condition(self.embed(self.time(t)), self.condition, condition))
        x = self.input(x)
        skips = [x]
        for layer in self.down:
            x = layer(x, embedding) if isinstance(layer, ResidualBlock) else layer(x)
            skips.append(x)
        for layer in self.middle:
            x = layer(x, embedding)
        for layer in self.up:
            if isinstance(layer, ResidualBlock):
                x = torch.cat([x, skips.pop()], dim=1)
                x = layer(x, embedding)
            else:
                x = layer(x)
        prediction: Tensor = self.output(F.silu(self.norm(x)))
        return prediction.float().contiguous()
