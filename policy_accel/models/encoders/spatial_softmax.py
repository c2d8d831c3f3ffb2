"""Spatial softmax: where in the frame each learned feature is seen (Finn et al. 2016, section V-B)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpatialSoftmax(nn.Module):
    """Expected image coordinates of learned key points: [B, C, H, W] -> [B, 2 * keypoints] float32.

    A 1 x 1 convolution gives one map for each key point; softmax over its H * W positions (temperature 1) weights their
    coordinates, which run from -1 (left, top) to 1 (right, bottom). The output is x, y of the first key point, then of
    the second, and so on, as in robomimic.

    Args:
        channels: C.
        size: (H, W).
        keypoints: key points.
    """

    grid_x: Tensor
    grid_y: Tensor

    def __init__(self, channels: int, size: tuple[int, int], keypoints: int) -> None:
        super().__init__()
        height, width = size
        self.maps = nn.Conv2d(channels, keypoints, 1)
        x, y = torch.linspace(-1, 1, width), torch.linspace(-1, 1, height)
        self.register_buffer("grid_x", x.repeat(height), persistent=False)
        self.register_buffer("grid_y", y.repeat_interleave(width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Key points [B, 2 * keypoints] in [-1, 1] of x [B, C, H, W]."""
        # A matrix product with the grid would run in bf16 under autocast, and the coordinates would lose their digits.
        weights = self.maps(x).flatten(2).float().softmax(dim=-1)
        points = torch.stack([(weights * self.grid_x).sum(-1), (weights * self.grid_y).sum(-1)], dim=-1)
        return points.flatten(1)
