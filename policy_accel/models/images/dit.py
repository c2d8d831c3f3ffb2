"""The diffusion transformer with adaptive layer normalisation (DiT with adaLN-Zero, Peebles & Xie 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.models.config import ModelConfig, check_positive
from policy_accel.models.denoiser import Denoiser, hidden_matrices
from policy_accel.models.images.layers import TimeEmbedding, add_condition, condition_layer, initialise_uniform
from policy_accel.models.layers import attend

EPS = 1e-6
TIME_FEATURES = 256


@dataclass
class DitConfig(ModelConfig):
    """Diffusion transformer (DiT); the defaults are DiT-S/2.

    Published sizes (depth, width, heads): S 12, 384, 6; B 12, 768, 12; L 24, 1024, 16; XL 28, 1152, 16.
    """

    name: str = "dit"
    patch: int = 2
    """Side length of a patch; must divide the resolution."""
    depth: int = 12
    """Transformer blocks."""
    width: int = 384
    """Numbers of the vector of a patch."""
    heads: int = 6
    """Attention heads; must divide width."""
    mlp_ratio: int = 4
    """Width of each block's hidden layer as a multiple of `width`."""


class Modulation(nn.Linear):
    """Scales, shifts and gates of the embedding: [B, width] -> `parts` times [B, 1, width], all zero at first."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__(width, parts * width)
        self.parts = parts

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Split the mapped embedding [B, width], which has passed its non-linearity."""
        return super().forward(embedding)[:, None].chunk(self.parts, dim=-1)


def normalise(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer normalisation of x [B, N, width] with the embedding's shift and 1 + scale [B, 1, width]."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1.0 + scale) + shift


class Block(nn.Module):
    """Attention over the patches, then a perceptron on each: [B, N, width], [B, width] -> [B, N, width].

    The embedding shifts and scales the input of both and gates what they add; the gates start at zero.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = Modulation(width, 6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width), nn.GELU(approximate="tanh"), nn.Linear(mlp_ratio * width, width)
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Transform x [B, N, width]; embedding [B, width] has passed its non-linearity."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(embedding)
        x = x + gate_a * self.out(attend(self.qkv(normalise(x, shift_a, scale_a)), self.heads))
        output: Tensor = x + gate_m * self.mlp(normalise(x, shift_m, scale_m))
        return output


class ImageTransformer(Denoiser):
    """Image denoiser: transformer over patches; arguments as for `DdpmUnet`.

    The condition is mapped linearly and added to the time embedding.

    Raises:
        UserError: sizes that do not divide one another, or a patch that does not divide the resolution.
    """

    position: Tensor

    def __init__(
        self,
        config: DitConfig,
        *,
        channels: int,
        resolution: int,
        condition_dim: int = 0,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        width, patch = config.width, config.patch
        check_positive(patch=patch, depth=config.depth, width=width, heads=config.heads, mlp_ratio=config.mlp_ratio)
        if resolution % patch:
            raise UserError(f"model.patch={patch} does not divide the image's side of {resolution} pixels; change one.")
        if width % config.heads or width % 4:
            raise UserError(
                f"model.width={width} must be divisible by model.heads={config.heads} and by 4; change one."
            )
        self.patch = patch
        self.side = resolution // patch
        self.input = nn.Conv2d(channels, width, patch, stride=patch)
        self.register_buffer("position", position_table(width, self.side), persistent=False)
        self.time = TimeEmbedding(width, TIME_FEATURES)
        self.condition = condition_layer(condition_dim, width)
        self.blocks = nn.ModuleList(Block(width, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.modulation = Modulation(width, 2)
        self.output = nn.Linear(width, patch * patch * (out_channels or channels))
        self._initialise()

    def units(self) -> list[nn.Module]:
        """The blocks."""
        return list(self.blocks)

    def matrices(self) -> set[str]:
        """See `Denoiser.matrices`: all but those of time, condition, input and output."""
        return hidden_matrices(self, "time", "condition", "input", "output")

    def _initialise(self) -> None:
        """As published: Glorot's weights, deviation 0.02 in the embeddings, zero modulation and output."""
        self.apply(initialise_uniform)
        nn.init.xavier_uniform_(self.input.weight.view(self.input.weight.shape[0], -1))
        for layer in (self.time.mix[0], self.time.mix[2], self.condition):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, Modulation):
                nn.init.zeros_(module.weight)
        nn.init.zeros_(self.output.weight)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict [B, C, H, W] float32 from x of that shape, t [B] and condition [B, condition_dim] (None: zeros)."""
        embedding = F.silu(add_condition(self.time(t), self.condition, condition))
        hidden = self.input(x).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            hidden = block(hidden, embedding)
        shift, scale = self.modulation(embedding)
        pixels: Tensor = self.output(normalise(hidden, shift, scale)).float()
        # [B, rows, columns, patch row, patch column, C] -> [B, C, rows, patch row, columns, patch column]
        pixels = torch.unflatten(torch.unflatten(pixels, 2, (self.patch, self.patch, -1)), 1, (self.side, self.side))
        return pixels.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def position_table(width: int, side: int) -> Tensor:
    """Sines and cosines of each patch's place: [side * side, width] float32, row after row.

    The first half of the entries tells the column, the second the row; in each half the sines come first (Peebles & Xie
    2023, after He et al. 2022).
    """
    quarter = width // 4
    frequencies = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    column, row = line.expand(side, side, -1), line[:, None].expand(side, side, -1)
    return torch.cat([column, row], dim=2).flatten(0, 1).float()
