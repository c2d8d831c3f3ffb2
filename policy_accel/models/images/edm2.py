"""The magnitude-preserving U-Net of Karras et al. 2024 ("Analyzing and Improving the Training Dynamics of Diffusion
Models", configuration G): no normalisation of activations across the image, no biases, and weights of unit length."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.models.denoiser import Denoiser
from policy_accel.models.embedding import angles
from policy_accel.models.images.layers import UNWANTED, UnetSizes, heads_by_width
from policy_accel.models.images.resampling import Resample
from policy_accel.models.images.unet import decode, encode, encoder_and_decoder
from policy_accel.models.layout import laid_as

EPS = 1e-4
RESIDUAL = 0.3
"""Share of what a block and its attention add, against what they are given."""
HALF = 0.5
"""Share of the classes against the time, and of a skip against what comes up."""
BOUND = 256.0
"""Of activations, which fp16 would lose."""
SILU_DEVIATION = 0.596
"""Of silu(x) for a standard normal x."""


@dataclass
class Edm2Config(UnetSizes):
    """U-Net of EDM2; the defaults are its size S for ImageNet (280 M parameters with 1,000 classes).

    Published channels: XS 128, S 192, M 256, L 320, XL 384, XXL 448. Where there is attention, it follows each block.
    """

    name: str = "edm2"
    channels: int = 192
    multipliers: list[int] = field(default_factory=lambda: [1, 2, 3, 4])
    blocks: int = 3
    attention_resolutions: list[int] = field(default_factory=lambda: [16, 8])
    dropout: float = 0.0
    head_channels: int = 64
    """Channels of a head of attention; must divide those of each resolution that has it."""
    uncertainty: int = 128
    """Features of the time from which the network learns how uncertain its prediction is, by which the loss of each
    noise level is weighted; 0 for none."""

    def heads_of(self, channels: int) -> int:
        """See `UnetSizes.heads_of`."""
        return heads_by_width(channels, self.head_channels)


def normalise(x: Tensor, *dims: int) -> Tensor:
    """x over the root of the mean of its squares along `dims`; without any, of each of its rows."""
    along = dims or tuple(range(1, x.ndim))
    norm = torch.linalg.vector_norm(x, dim=along, keepdim=True, dtype=torch.float32)
    normalised: Tensor = x / (EPS + norm * math.sqrt(norm.numel() / x.numel())).to(x.dtype)
    return normalised


def activate(x: Tensor) -> Tensor:
    """SiLU that keeps the magnitude (equation 81)."""
    return F.silu(x) / SILU_DEVIATION


def mix(a: Tensor, b: Tensor, share: float) -> Tensor:
    """(1 - share) a + share b at the magnitude of both (equation 88)."""
    return torch.lerp(a, b.to(a.dtype), share) / math.hypot(1.0 - share, share)


def join(a: Tensor, b: Tensor) -> Tensor:
    """Channels of a and b side by side, so that each of the two counts alike (equation 103)."""
    scale = math.sqrt((a.shape[1] + b.shape[1]) / 2.0)
    return torch.cat([a * (scale / math.sqrt(a.shape[1])), b * (scale / math.sqrt(b.shape[1]))], dim=1)


class MPLayer(nn.Module):
    """A linear map (`kernel` 0) or a convolution, of weights of unit length: what it makes of inputs of unit magnitude
    has that too (equations 47 and 66).

    In training every call first brings the weights themselves back to unit length, so that the learning rate means the
    same throughout.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *([kernel] * 2 if kernel else [])))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Map x [B, C] or [B, C, H, W], times `gain`."""
        if self.training:
            with torch.no_grad():
                self.weight.copy_(normalise(self.weight))
        weight = normalise(self.weight) * (gain / math.sqrt(self.weight[0].numel()))
        weight = weight.to(x.dtype)
        if weight.ndim == 2:
            return F.linear(x, weight)
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


class MPFourier(nn.Module):
    """Cosines of t at random frequencies and phases, of unit magnitude: [B] -> [B, dim] float32 (equation 75)."""

    frequencies: Tensor
    phases: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 * math.pi * torch.randn(dim))
        self.register_buffer("phases", 2.0 * math.pi * torch.rand(dim))

    def forward(self, t: Tensor) -> Tensor:
        """Embed t [B], or [B, n], see `angles`."""
        return (angles(t, self.frequencies) + self.phases).cos() * math.sqrt(2.0)


class Edm2Block(nn.Module):
    """A residual block, then attention if `heads` is not 0: [B, C_in, H, W], [B, E] -> [B, C_out, H', W'].

    decoder: of the decoder; those of the encoder normalise what they are given, each pixel by itself.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int,
        decoder: bool,
        dropout: float,
        heads: int = 0,
        resample: str | None = None,
    ) -> None:
        super().__init__()
        self.decoder, self.heads = decoder, heads
        self.resample = None if resample is None else Resample(resample, [1, 1])
        self.gain = nn.Parameter(torch.zeros(()))
        self.conv_in = MPLayer(inputs if decoder else outputs, outputs, 3)
        self.embedding = MPLayer(width, outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = MPLayer(outputs, outputs, 3)
        self.residual = MPLayer(inputs, outputs, 1) if inputs != outputs else None
        self.qkv = MPLayer(outputs, 3 * outputs, 1) if heads else None
        self.out = MPLayer(outputs, outputs, 1) if heads else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Transform x [B, C_in, H, W]; embedding [B, E] has passed its non-linearity."""
        if self.resample is not None:
            x = self.resample(x)
        if not self.decoder:
            x = normalise(x if self.residual is None else self.residual(x), 1)
        hidden = self.conv_in(activate(x))
        scale = self.embedding(embedding, self.gain) + 1.0
        hidden = activate(hidden * scale[:, :, None, None].to(hidden.dtype))
        hidden = self.conv_out(self.dropout(hidden))
        if self.decoder and self.residual is not None:
            x = self.residual(x)
        x = mix(x, hidden, RESIDUAL)
        if self.qkv is not None and self.out is not None:
            x = mix(x, self.out(self._attended(self.qkv(x))), RESIDUAL)
        return x.clamp(-BOUND, BOUND)

    def _attended(self, qkv: Tensor) -> Tensor:
        """Queries, keys and values [B, 3 C, H, W], each pixel's of each head of unit magnitude -> [B, C, H, W]."""
        heads = normalise(qkv.flatten(2).unflatten(1, (3, self.heads, -1)), 3)
        q, k, v = heads.transpose(3, 4).unbind(1)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(1, 2)
        image: Tensor = attended.unflatten(2, qkv.shape[2:])
        return image


class Edm2Unet(Denoiser):
    """Image denoiser: EDM2's U-Net; arguments and errors as for `DdpmUnet`."""

    def __init__(
        self,
        config: Edm2Config,
        *,
        channels: int,
        resolution: int,
        condition_dim: int = 0,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        levels = config.levels(resolution)
        if config.uncertainty < 0:
            raise UserError(f"model.uncertainty={config.uncertainty} must be at least 1, or 0 for none.")
        start, width = levels[0][0], max(outputs for outputs, _ in levels)
        self.fourier = MPFourier(start)
        self.time = MPLayer(start, width)
        self.condition = MPLayer(condition_dim, width) if condition_dim else None
        self.input = MPLayer(channels + 1, start, 3)
        block = partial(Edm2Block, width=width, dropout=config.dropout)
        self.down, self.middle, self.up = encoder_and_decoder(
            start,
            levels,
            blocks=config.blocks,
            heads=config.heads_of(levels[-1][0]),
            encoder=partial(block, decoder=False),
            decoder=partial(block, decoder=True),
            all_attend=True,
        )
        self.output = MPLayer(start, out_channels or channels, 3)
        self.gain = nn.Parameter(torch.zeros(()))
        self.of_uncertainty = None
        if config.uncertainty:
            self.of_uncertainty = nn.Sequential(MPFourier(config.uncertainty), MPLayer(config.uncertainty, 1))

    def matrices(self) -> set[str]:
        """See `Denoiser.matrices`: those of the blocks."""
        blocks = (*self.down, *self.middle, *self.up)
        hidden = {id(layer.weight) for block in blocks for layer in block.modules() if isinstance(layer, MPLayer)}
        return {name for name, weight in self.named_parameters() if id(weight) in hidden}

    def uncertainty(self, t: Tensor) -> Tensor | None:
        """See `Denoiser.uncertainty`."""
        if self.of_uncertainty is None:
            return None
        with torch.autocast(t.device.type, enabled=False):
            log_variance: Tensor = self.of_uncertainty(t)
        return log_variance[:, 0]

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict [B, C, H, W] float32 from x of that shape, t [B] and condition [B, condition_dim] (None: zeros)."""
        embedding = self.time(self.fourier(t))
        if self.condition is not None:
            told = x.new_zeros(len(x), self.condition.weight.shape[1]) if condition is None else condition
            embedding = mix(embedding, self.condition(told * math.sqrt(told.shape[1])), HALF)
        elif condition is not None:
            raise ValueError(UNWANTED)
        embedding = activate(embedding)
        x = laid_as(torch.cat([x, torch.ones_like(x[:, :1])], dim=1), self.input.weight)
        x = decode(encode(self.input(x), embedding, self.down), embedding, self.middle, self.up, join)
        prediction: Tensor = self.output(x, self.gain)
        return prediction.float().contiguous()
