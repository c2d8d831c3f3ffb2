"""Layers that image networks and observation encoders share: group normalisation and attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policy_accel.models.group_norm import group_norm_channels_last


class GroupNorm(nn.GroupNorm):
    """Group normalisation [B, C, H, W] that keeps the input's precision under autocast, and its layout.

    Autocast would turn bf16 activations into float32 here, and so double the traffic of all that follows up to the next
    convolution; the kernels take mean and variance in float32 in any case.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [B, C, H, W]."""
        if x.is_cuda and x.stride(1) == 1:
            return group_norm_channels_last(x, self.num_groups, self.weight, self.bias, self.eps)
        if x.dtype == torch.float32:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class SelfAttention(nn.Module):
    """What attention over all H * W positions adds to its input: [B, C, H, W] -> [B, C, H, W].

    Args:
        channels: C.
        heads: attention heads; must divide C.
        groups: groups of the normalisation before it.
        eps: added to the normalisation's variance.
    """

    def __init__(self, channels: int, *, heads: int, groups: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = GroupNorm(groups, channels, eps=eps)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each image of x [B, C, H, W]."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        tokens = self.out(attend(self.qkv(tokens), self.heads))
        return torch.unflatten(tokens.transpose(1, 2), 2, x.shape[2:])


def attend(qkv: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention from queries, keys and values side by side: [B, N, 3 C] -> [B, N, C]."""
    q, k, v = torch.unflatten(qkv, 2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
