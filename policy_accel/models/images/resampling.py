"""Halving and doubling of images by a separable filter (Zhang 2019; Song et al. 2021, appendix H)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.models.images.layers import upsample


class Resample(nn.Module):
    """Halve ("down": [B, C, H, W] -> [B, C, H / 2, W / 2]) or double ("up") height and width.

    Down: filter with the outer product of `taps`, of unit sum, at every second pixel. Up: the adjoint of that, times 4,
    so that a constant image stays what it is away from the edges. Pixels beyond the edge count as zeros.

    Args:
        direction: "down" or "up".
        taps: an even number of filter taps.
        padding: zeros at each edge before the filter; by default as many as keep the size exactly half.
    """

    kernel: Tensor

    def __init__(self, direction: str, taps: list[int], *, padding: int | None = None) -> None:
        super().__init__()
        self.up = direction == "up"
        self.padding = (len(taps) - 1) // 2 if padding is None else padding
        self.pair = list(taps) == [1, 1]
        row = torch.tensor(taps, dtype=torch.float64)
        row /= row.sum()
        self.register_buffer("kernel", torch.outer(row, row).float()[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Resample x."""
        if self.pair:
            # Two equal taps average four pixels or repeat one, for which there are faster kernels.
            return upsample(x) if self.up else F.avg_pool2d(x, 2)
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, -1, -1)
        if self.up:
            return F.conv_transpose2d(x, 4.0 * kernel, stride=2, padding=self.padding, groups=channels)
        return F.conv2d(x, kernel, stride=2, padding=self.padding, groups=channels)


def check_filter(taps: list[int]) -> list[int]:
    """Return the filter's taps as a plain list.

    Raises:
        UserError: an odd or zero number of taps, or taps that sum to nothing.
    """
    if not taps or len(taps) % 2 or sum(taps) <= 0:
        raise UserError(
            f"model.resample_filter={list(taps)} must be an even number of taps with a positive sum, for example "
            "[1,1] or [1,3,3,1]."
        )
    return list(taps)
