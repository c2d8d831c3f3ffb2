"""Vision transformer (Dosovitskiy et al. 2021) as an encoder of camera frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.models.encoders.config import EncoderConfig
from policy_accel.models.layers import attend

EPSILON = 1e-6


class EncoderBlock(nn.Module):
    """Self-attention and MLP, each after a layer normalisation and added to its input: [B, N, dim] -> [B, N, dim]."""

    def __init__(self, dim: int, *, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, eps=EPSILON)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=EPSILON)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens x [B, N, dim]."""
        x = x + self.out(attend(self.qkv(self.norm1(x)), self.heads))
        output: Tensor = x + self.mlp(self.norm2(x))
        return output


class ViTEncoder(nn.Module):
    """Patches, transformer, linear map of the class token: images [B, C, H, W] -> [B, feature_dim].

    Args:
        config: sizes.
        size: (H, W) of the images; the patch must divide both.
        channels: C.

    Raises:
        UserError: a patch that does not divide the frame.
    """

    def __init__(self, config: EncoderConfig, *, size: tuple[int, int], channels: int) -> None:
        super().__init__()
        vit = config.vit
        if size[0] % vit.patch or size[1] % vit.patch:
            fitting = [side for side in range(2, 33) if not size[0] % side and not size[1] % side]
            remedy = f"use one of {', '.join(map(str, fitting))}" if fitting else "choose another encoder.crop"
            raise UserError(
                f"encoder.vit.patch={vit.patch} does not divide frames of {size[0]} x {size[1]} px; {remedy}."
            )
        tokens = (size[0] // vit.patch) * (size[1] // vit.patch)
        self.patches = nn.Conv2d(channels, vit.dim, vit.patch, vit.patch)
        self.token = nn.Parameter(torch.zeros(1, 1, vit.dim))
        self.position = nn.Parameter(torch.zeros(1, 1 + tokens, vit.dim))
        hidden = round(vit.mlp_ratio * vit.dim)
        self.blocks = nn.Sequential(*(EncoderBlock(vit.dim, heads=vit.heads, hidden=hidden) for _ in range(vit.depth)))
        self.norm = nn.LayerNorm(vit.dim, eps=EPSILON)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for parameter in (self.token, self.position):
            nn.init.trunc_normal_(parameter, std=0.02)
        self.head = nn.Linear(vit.dim, config.feature_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Features [B, feature_dim] of images [B, C, H, W] in [-1, 1]."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(patches.shape[0], -1, -1).to(patches.dtype), patches], dim=1)
        features: Tensor = self.head(self.norm(self.blocks(tokens + self.position)[:, 0]))
        return features
