"""DDPM++ and NCSN++, the U-Nets of Song et al. 2021 ("Score-Based Generative Modeling through SDEs") in the form that
Karras et al. 2022 train ("Elucidating the Design Space of Diffusion-Based Generative Models", appendix F.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policy_accel.errors import UserError, one_of
from policy_accel.models.config import check_positive
from policy_accel.models.denoiser import Denoiser, hidden_matrices
from policy_accel.models.embedding import SinusoidalEmbedding, angles
from policy_accel.models.images.layers import (
    EPS,
    UNWANTED,
    ImageUnetConfig,
    ResidualBlock,
    initialise_uniform,
    norm_groups,
)
from policy_accel.models.images.resampling import Resample, check_filter
from policy_accel.models.images.unet import decode, encoder_and_decoder
from policy_accel.models.layers import GroupNorm, SelfAttention
from policy_accel.models.layout import laid_as

SILENT = 1e-5
"""Factor on the first weights of the layers that end a residual branch, and of the output."""
ATTENTION = math.sqrt(0.2)
"""Factor on the first weights of queries, keys and values."""
EMBEDDINGS = ("positional", "fourier")
ENCODERS = ("standard", "residual")


@dataclass
class EdmConfig(ImageUnetConfig):
    """U-Net of EDM; the defaults are DDPM++ for CIFAR-10.

    NCSN++ is embedding=fourier, time_multiplier=2, encoder=residual, resample_filter=[1,3,3,1]. At 64 x 64 pixels the
    publication takes multipliers=[1,2,2,2] (and dropout 0.05 for FFHQ, 0.25 for AFHQv2). Where there is attention, the
    blocks of the encoder and the last one of the decoder have it.
    """

    name: str = "edm"
    multipliers: list[int] = field(default_factory=lambda: [2, 2, 2])
    blocks: int = 4
    dropout: float = 0.13
    embedding: str = "positional"
    """How the time is embedded: positional (sines of fixed frequencies) or fourier (of random ones)."""
    time_multiplier: int = 1
    """Entries of the time embedding as a multiple of `channels`."""
    encoder: str = "standard"
    """residual: the downsampled image itself is added at each resolution of the encoder."""
    resample_filter: list[int] = field(default_factory=lambda: [1, 1])
    """Taps of the filter for halving and doubling; [1,1] averages and repeats pixels, [1,3,3,1] is smoother."""


class FourierEmbedding(nn.Module):
    """Sines and cosines of t at `dim / 2` random frequencies of deviation 16: [B] -> [B, dim] float32.

    From Song et al. 2021, appendix H; the frequencies are drawn once and saved with the weights.
    """

    frequencies: Tensor

    def __init__(self, dim: int, scale: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(dim // 2) * scale)

    def forward(self, t: Tensor) -> Tensor:
        """Embed t [B], or [B, n], see `angles`."""
        at = angles(t, 2.0 * math.pi * self.frequencies)
        return torch.cat([at.sin(), at.cos()], dim=-1)


class Pyramid(nn.Module):
    """Brings the image of the level above to the encoder, downsampled: [B, C_in, H, W] -> [B, C, H / 2, W / 2].

    Convolution and filter are linear and follow one another, as in NCSN++'s residual encoder.
    """

    def __init__(self, in_channels: int, out_channels: int, taps: list[int]) -> None:
        super().__init__()
        # The filter sees the convolution's result beyond the image's edge: the paddings add up, and nothing is cut.
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1 + (len(taps) - 1) // 2)
        self.halve = Resample("down", taps, padding=0)

    def forward(self, image: Tensor) -> Tensor:
        """Convolve and halve the image."""
        # The bias is a constant, which the filter (of unit sum) leaves alone.
        half: Tensor = self.halve(self.conv(image))
        return half


class Told(nn.Module):
    """What the network is told beside the time, mapped to its embedding: [B, classes + others] -> [B, width].

    One-hot classes are multiplied by the root of their number, so that their weights learn as fast as the publication's
    do; the null class is a row of zeros. Others are the parameters of an augmentation.
    """

    def __init__(self, classes: int, others: int, width: int) -> None:
        super().__init__()
        self.size = classes + others
        self.classes = nn.Linear(classes, width) if classes else None
        self.others = nn.Linear(others, width, bias=False) if others else None
        self.register_load_state_dict_pre_hook(_split)  # type: ignore[no-untyped-call]

    def forward(self, told: Tensor) -> Tensor:
        """Map told [B, classes + others]."""
        if self.classes is None:
            assert self.others is not None
            found: Tensor = self.others(told)
            return found
        number = self.classes.in_features
        found = self.classes(told[:, :number] * math.sqrt(number))
        return found if self.others is None else found + self.others(told[:, number:])


def _split(module: Told, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Weights of earlier versions had classes and others in one matrix, without the factor and the bias."""
    weight = state.pop(f"{prefix}weight", None)
    if weight is None:
        return
    number = 0 if module.classes is None else module.classes.in_features
    if module.classes is not None:
        state[f"{prefix}classes.weight"] = weight[:, :number] / math.sqrt(number)
        state[f"{prefix}classes.bias"] = torch.zeros_like(weight[:, 0])
    if module.others is not None:
        state[f"{prefix}others.weight"] = weight[:, number:]


class EdmUnet(Denoiser):
    """Image denoiser: DDPM++ or NCSN++; arguments and errors as for `DdpmUnet`, and `classes`, how many of the
    condition's numbers are a one-hot class; they come first.

    The condition is mapped linearly and added to the time embedding before the two layers that mix it, see `Told`. The
    network is the publication's F; the factors around it belong to the process.
    """

    def __init__(
        self,
        config: EdmConfig,
        *,
        channels: int,
        resolution: int,
        condition_dim: int = 0,
        classes: int = 0,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        levels = config.levels(resolution)
        one_of("model.embedding", config.embedding, EMBEDDINGS)
        one_of("model.encoder", config.encoder, ENCODERS)
        check_positive(time_multiplier=config.time_multiplier)
        taps = check_filter(config.resample_filter)
        residual = config.encoder == "residual"
        if residual and len(config.multipliers) == 1:
            raise UserError("model.encoder=residual has no effect with one resolution; give two or more multipliers.")
        width, time_width = 4 * config.channels, config.channels * config.time_multiplier
        self.time = (SinusoidalEmbedding if config.embedding == "positional" else FourierEmbedding)(time_width)
        self.condition = Told(classes, condition_dim - classes, time_width) if condition_dim else None
        self.embed = nn.Sequential(nn.Linear(time_width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        start, outputs = config.channels, [outputs for outputs, _ in levels]
        self.input = nn.Conv2d(channels, start, 3, padding=1)
        block = partial(_block, width=width, dropout=config.dropout, taps=taps)
        pyramids = [Pyramid(*pair, taps) for pair in pairwise([channels, *outputs[:-1]])] if residual else []
        self.down, self.middle, self.up = encoder_and_decoder(
            start, levels, blocks=config.blocks, heads=config.heads, encoder=block, decoder=block, beside=pyramids
        )
        self.norm = GroupNorm(norm_groups(outputs[0]), outputs[0], eps=EPS)
        self.output = nn.Conv2d(outputs[0], out_channels or channels, 3, padding=1)
        self._initialise()

    def matrices(self) -> set[str]:
        """See `Denoiser.matrices`: all but those of time, condition and output, and those that see the image."""
        pyramids = [name for name, part in self.named_modules() if isinstance(part, Pyramid)]
        return hidden_matrices(self, "embed", "condition", "input", "output", *pyramids)

    @torch.no_grad()
    def _initialise(self) -> None:
        """As published: Glorot's weights, near zero at the end of every residual branch and of the net."""
        self.apply(initialise_uniform)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                module.conv_out.weight *= SILENT
            elif isinstance(module, SelfAttention):
                module.out.weight *= SILENT
                module.qkv.weight *= ATTENTION
        self.output.weight *= SILENT

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict [B, C, H, W] float32 from x of that shape, t [B] and condition [B, condition_dim] (None: zeros)."""
        x = laid_as(x, self.input.weight)
        embedding = self.time(t)
        if self.condition is not None:
            told = x.new_zeros(len(x), self.condition.size) if condition is None else condition
            embedding = embedding + self.condition(told)
        elif condition is not None:
            raise ValueError(UNWANTED)
        embedding = self.embed(embedding)
        image = x
        x = self.input(x)
        skips = [x]
        for layer in self.down:
            if isinstance(layer, Pyramid):
                image = x = (x + layer(image)) * math.sqrt(0.5)
                skips[-1] = x
            else:
                x = layer(x, embedding)
                skips.append(x)
        x = decode(skips, embedding, self.middle, self.up)
        prediction: Tensor = self.output(F.silu(self.norm(x)))
        return prediction.float().contiguous()


def _block(inputs: int, outputs: int, *, taps: list[int], resample: str | None = None, **sizes: Any) -> ResidualBlock:
    resampled = None if resample is None else Resample(resample, taps)
    return ResidualBlock(inputs, outputs, resample=resampled, gain=math.sqrt(0.5), **sizes)
