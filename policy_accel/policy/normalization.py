"""Per-dimension affine normalisers, part of the policy and saved with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from policy_accel.data.statistics import NOTICEABLE, float_steps, never_changes, rounding
from policy_accel.errors import UserError, one_of

MODES = ("limits", "gaussian", "max_abs", "identity")
_FAR = 2.0**-13  # of its range may be a step of float32, else a dimension is brought near 0 before it becomes float32


class Normalizer(nn.Module):
    """y = (x - center) * scale + offset for every dimension; the identity until it is fitted or loaded.

    The difference is taken in float64, and y is float32: numbers far from 0, as seconds since 1970, keep what changes
    in them. The inverse returns a dimension that never changed in the data exactly, whatever y is; in `dtype`, which is
    float32 unless that does not hold the data's own units. `Normalizer(dims)` followed by `load_state_dict` restores a
    saved one; states of earlier versions have `scale` and `offset` alone.
    """

    def __init__(self, dims: int):
        super().__init__()
        self.scale = nn.Buffer(torch.ones(dims))
        self.offset = nn.Buffer(torch.zeros(dims))
        self.center = nn.Buffer(torch.zeros(dims, dtype=torch.float64))  # 0 of numbers near 0
        self.varies = nn.Buffer(torch.ones(dims, dtype=torch.bool))
        self.constant = nn.Buffer(torch.zeros(dims, dtype=torch.float64))  # of those that do not vary
        self.dtype = torch.float32

    def forward(self, x: torch.Tensor, columns: Sequence[int] | slice = slice(None)) -> torch.Tensor:
        """Normalise x [..., D], or x [..., C] that holds some `columns` of it."""
        return (x.double() - self.center[columns]).float() * self.scale[columns] + self.offset[columns]

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Bring normalised y [..., D] back to the data's own units."""
        x = (y - self.offset) / self.scale
        if self.dtype == torch.float64:
            x = x.double() + self.center
        return torch.where(self.varies, x, self.constant.to(self.dtype))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, buffer in Normalizer(len(self.scale)).named_buffers():
            if name not in ("scale", "offset"):
                state_dict.setdefault(prefix + name, buffer)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        exact = not self.center.any() and torch.equal(self.constant, self.constant.float().double())
        self.dtype = torch.float32 if exact else torch.float64


def fit_normalizer(
    data: torch.Tensor | np.ndarray,
    mode: str = "limits",
    *,
    untouched: Sequence[int] = (),
    precision: np.ndarray | None = None,
) -> Normalizer:
    """Fit a normaliser on data [N, D], in float64.

    `limits` maps minimum and maximum of every dimension to -1 and 1; `gaussian` gives mean 0 and (unbiased) standard
    deviation 1; `max_abs` divides all dimensions by the one largest magnitude (Diffusion Policy's robomimic
    observations); `identity` changes nothing. A dimension that never changes, but for the rounding of its type, is
    shifted to 0 and keeps scale 1, as in `LinearNormalizer` of Diffusion Policy (which takes any range below 1e-4 for
    none).

    Args:
        data: [N, D] finite, N >= 1.
        mode: one of `MODES`.
        untouched: columns that keep their values.
        precision: `rounding` [D] of the types that the columns were recorded in; None for the type of `data`.

    Raises:
        UserError: unknown mode; numbers that are not shifted and change by little more than the steps of float32 there.
    """
    one_of("normaliser", mode, MODES)
    values = torch.as_tensor(data).double()
    if precision is None:
        precision = np.full(values.shape[1], rounding(torch.as_tensor(data)[:0].cpu().numpy().dtype))
    low, high, mean, first = (part.cpu().numpy() for part in (*values.aminmax(dim=0), values.mean(0), values[0]))
    constant, steps = never_changes(low, high, precision), float_steps(low, high, np.float32)
    center = np.where(~constant & (steps > _FAR), low + (high - low) / 2, 0.0)
    scale, offset = np.ones_like(low), np.zeros_like(low)
    if mode == "limits":
        scale = 2 / np.where(constant, 2, high - low)
        offset = np.where(constant, -low, -1 - scale * (low - center))
    elif mode == "gaussian":
        scale /= np.where(constant, 1, values.std(0, correction=min(1, len(values) - 1)).cpu().numpy())
        offset = -(mean - center) * scale
    elif mode == "max_abs":
        scale /= float(values.abs().amax()) or 1.0
    scale[list(untouched)], offset[list(untouched)] = 1.0, 0.0
    unshifted = list(untouched) if mode in ("limits", "gaussian") else list(range(len(low)))
    for i in unshifted:
        if steps[i] >= NOTICEABLE and not constant[i]:
            raise UserError(
                f"dimension {i} goes from {low[i]:.12g} to {high[i]:.12g}, and the network sees it in float32, whose "
                f"steps there are {steps[i]:.0%} of that; choose the normalisation limits or gaussian, which shift it "
                "first."
            )
    center[unshifted] = 0.0
    found = (scale, offset, center, ~constant, np.where(constant, first, 0.0))
    normalizer = Normalizer(len(low)).to(values.device)
    normalizer.load_state_dict(
        {name: torch.from_numpy(x) for name, x in zip(normalizer.state_dict(), found, strict=True)}
    )
    return normalizer
