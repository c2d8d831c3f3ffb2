"""ADM, the U-Net of Dhariwal & Nichol 2021 ("Diffusion Models Beat GANs on Image Synthesis") in the form that Karras et
al. 2022 train on ImageNet at 64 x 64 (appendix F.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from policy_accel.models.denoiser import Denoiser, hidden_matrices
from policy_accel.models.images.layers import (
    ResidualBlock,
    TimeEmbedding,
    UnetSizes,
    add_condition,
    condition_layer,
    heads_by_width,
    initialise_zero,
    norm_groups,
)
from policy_accel.models.images.resampling import Resample
from policy_accel.models.images.unet import decode, encode, encoder_and_decoder
from policy_accel.models.layers import GroupNorm, SelfAttention
from policy_accel.models.layout import laid_as

EPS = 1e-5


@dataclass
class AdmConfig(UnetSizes):
    """U-Net of ADM; the defaults are EDM's for ImageNet at 64 x 64 (295.9 M parameters with 1,000 classes).

    Where there is attention, it follows each residual block.
    """

    name: str = "adm"
    channels: int = 192
    multipliers: list[int] = field(default_factory=lambda: [1, 2, 3, 4])
    blocks: int = 3
    attention_resolutions: list[int] = field(default_factory=lambda: [32, 16, 8])
    head_channels: int = 64
    """Channels of a head of attention; must divide those of each resolution that has it."""

    def heads_of(self, channels: int) -> int:
        """See `UnetSizes.heads_of`."""
        return heads_by_width(channels, self.head_channels)


class AdmUnet(Denoiser):
    """Image denoiser: ADM; arguments and errors as for `DdpmUnet`.

    The embedding scales and shifts what each block normalises. The condition is mapped linearly and added to the
    embedding of the time after the layers that mix that.
    """

    def __init__(
        self,
        config: AdmConfig,
        *,
        channels: int,
        resolution: int,
        condition_dim: int = 0,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        levels = config.levels(resolution)
        width, start = 4 * config.channels, levels[0][0]
        self.time = TimeEmbedding(width, config.channels)
        self.condition = condition_layer(condition_dim, width)
        self.input = nn.Conv2d(channels, start, 3, padding=1)
        block = partial(_block, width=width, dropout=config.dropout)
        self.down, self.middle, self.up = encoder_and_decoder(
            start,
            levels,
            blocks=config.blocks,
            heads=config.heads_of(levels[-1][0]),
            encoder=block,
            decoder=block,
            all_attend=True,
        )
        self.norm = GroupNorm(norm_groups(start), start, eps=EPS)
        self.output = nn.Conv2d(start, out_channels or channels, 3, padding=1)
        self._initialise()

    def matrices(self) -> set[str]:
        """See `Denoiser.matrices`: all but those of time, condition, input and output."""
        return hidden_matrices(self, "time", "condition", "input", "output")

    def _initialise(self) -> None:
        """As published, which is as torch does it, with zeros for the last layer of every residual branch and of the
        net, and standard normal rows for the classes."""
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                initialise_zero(module.conv_out)
            elif isinstance(module, SelfAttention):
                initialise_zero(module.out)
        initialise_zero(self.output)
        if self.condition is not None:
            nn.init.normal_(self.condition.weight)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict [B, C, H, W] float32 from x of that shape, t [B] and condition [B, condition_dim] (None: zeros)."""
        embedding = F.silu(add_condition(self.time(t), self.condition, condition))
        skips = encode(self.input(laid_as(x, self.input.weight)), embedding, self.down)
        x = decode(skips, embedding, self.middle, self.up)
        prediction: Tensor = self.output(F.silu(self.norm(x)))
        return prediction.float().contiguous()


def _block(inputs: int, outputs: int, *, resample: str | None = None, **settings: Any) -> ResidualBlock:
    # The image itself is halved or doubled beside the branch, without a convolution where its channels stay.
    return ResidualBlock(
        inputs,
        outputs,
        resample=None if resample is None else Resample(resample, [1, 1]),
        projected=inputs != outputs,
        scaled=True,
        eps=EPS,
        **settings,
    )
