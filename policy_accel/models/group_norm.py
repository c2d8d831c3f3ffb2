"""Group normalisation of images that lie channels last in memory, for CUDA.

torch's kernel for CUDA (2.15, aten/src/ATen/native/group_norm.cpp) copies such an image to channels first, and so does
its gradient; the next convolution copies it back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def group_norm_channels_last(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """`torch.nn.functional.group_norm` of x [B, C, H, W], channels last, as is the result; of the type of x.

    Means and variances are taken in float32 whatever that is.
    """
    result: Tensor = _GroupNorm.apply(x, groups, weight, bias, eps)
    return result


class _GroupNorm(torch.autograd.Function):
    """As a function of its own it keeps x for the gradient, and nothing in float32 of that size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        rows = _rows(x, groups)
        variance, mean = torch.var_mean(rows.float(), dim=(1, 3), correction=0, keepdim=True)
        inverse = (variance + eps).rsqrt()
        scale = inverse * weight.unflatten(0, (groups, -1))
        shift = bias.unflatten(0, (groups, -1)) - mean * scale
        ctx.save_for_backward(x, mean, inverse, weight)
        ctx.groups = groups
        return _image(torch.addcmul(shift, rows, scale).to(x.dtype), x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, mean, inverse, weight = ctx.saved_tensors
        groups = ctx.groups
        rows, gradient = _rows(x, groups), _rows(gradients[0], groups).float()
        weights = weight.unflatten(0, (groups, -1))
        # With z the normalised rows: sums over the positions of gradient and gradient * z, [B, 1, G, C / G].
        plain = gradient.sum(1, keepdim=True)
        along = inverse * ((gradient * rows).sum(1, keepdim=True) - mean * plain)
        size = rows.shape[1] * rows.shape[3]
        pull = inverse.square() * (weights * along).sum(3, keepdim=True) / size
        push = pull * mean - inverse * (weights * plain).sum(3, keepdim=True) / size
        own = torch.addcmul(torch.addcmul(push, rows, -pull), gradient, inverse * weights)
        return _image(own.to(x.dtype), x), None, along.sum((0, 1)).flatten(), plain.sum((0, 1)).flatten(), None


def _rows(x: Tensor, groups: int) -> Tensor:
    """[B, C, H, W] as [B, H * W, G, C / G]: a view of what lies channels last."""
    return torch.unflatten(x.permute(0, 2, 3, 1).flatten(1, 2), 2, (groups, -1))


def _image(rows: Tensor, x: Tensor) -> Tensor:
    """The inverse, with the shape of x."""
    return torch.unflatten(rows.flatten(2), 1, x.shape[2:]).permute(0, 3, 1, 2)
