"""Per-dimension affine normalisers, part of the policy and saved with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from policy_accel.data.statistics import NOTICEABLE, float_steps, never_changes, rounding
from policy_accel.errors import UserError, did_you_mean

MODES = ("limits", "gaussian", "max_abs", "identity")
_FAR = 2.0**-13
"""Share of a dimension's range that a step of float32 may be; else it is brought near 0 before it becomes float32."""


class Normalizer(nn.Module):
    """y = (x - center) * scale + offset for every dimension; the identity until it is fitted or loaded.

    The difference is taken in float64, and y is float32: numbers far from 0, as seconds since 1970, keep what changes
    in them. The inverse returns a dimension that never changed in the data exactly, whatever y is.

    `Normalizer(dims)` followed by `load_state_dict` restores a saved one from its buffers [dims]: `scale` and `offset`
    float32, `center` float64 (0 of numbers near 0), `varies` bool, `constant` float64 (what does not vary). States of
    earlier versions have the first two alone.

    Attributes:
        dtype: what the inverse returns, float32 unless that does not hold the data's own units.
    """

    scale: torch.Tensor
    offset: torch.Tensor
    center: torch.Tensor
    varies: torch.Tensor
    constant: torch.Tensor

    def __init__(self, dims: int):
        super().__init__()
        self.register_buffer("scale", torch.ones(dims))
        self.register_buffer("offset", torch.zeros(dims))
        self.register_buffer("center", torch.zeros(dims, dtype=torch.float64))
        self.register_buffer("varies", torch.ones(dims, dtype=torch.bool))
        self.register_buffer("constant", torch.zeros(dims, dtype=torch.float64))
        self.dtype = torch.float32

    def forward(self, x: torch.Tensor, columns: Sequence[int] | None = None) -> torch.Tensor:
        """Normalise x [..., D], or x [..., C] that holds some `columns` of it."""
        center, scale, offset = self.center, self.scale, self.offset
        if columns is not None:
            center, scale, offset = center[columns], scale[columns], offset[columns]
        return (x.double() - center).float() * scale + offset

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Bring normalised y [..., D] back to the data's own units."""
        x = (y - self.offset) / self.scale
        if self.dtype == torch.float64:
            x = x.double() + self.center
        return torch.where(self.varies, x, self.constant.to(self.dtype))

    def choose_dtype(self) -> None:
        """Make `dtype` fit the buffers."""
        exact = not self.center.any() and torch.equal(self.constant, self.constant.float().double())
        self.dtype = torch.float32 if exact else torch.float64

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("center", "varies", "constant"):
            state_dict.setdefault(prefix + name, getattr(Normalizer(len(self.scale)), name))
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.choose_dtype()


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
        data: [N, D].
        mode: see above.
        untouched: columns that keep their values.
        precision: `rounding` [D] of the types that the columns were recorded in; None for the type of `data`.

    Raises:
        UserError: unknown mode; data that is not [N, D] with N >= 1; NaN or Inf in the data; numbers that keep their
            magnitude in this mode and change by little more than the steps of float32 there.
    """
    if mode not in MODES:
        raise UserError(f"there is no normaliser '{mode}'; {did_you_mean(mode, MODES)}")
    given = torch.as_tensor(data)
    values = given.to(torch.float64)
    if values.ndim != 2 or values.numel() == 0:
        raise UserError(f"a normaliser is fitted on [steps, dimensions], not on shape {tuple(values.shape)}.")
    if not values.isfinite().all():
        step, dimension = (~values.isfinite()).nonzero()[0].tolist()
        raise UserError(f"a normaliser cannot be fitted: step {step}, dimension {dimension} is not a finite number.")
    if precision is None:
        precision = np.full(values.shape[1], rounding(given[:0].cpu().numpy().dtype))
    normalizer = Normalizer(values.shape[1]).to(values.device)
    low, high = values.amin(0), values.amax(0)
    span, ends = high - low, (low.cpu().numpy(), high.cpu().numpy())
    constant = torch.from_numpy(never_changes(*ends, precision)).to(span.device)
    far = torch.from_numpy(float_steps(*ends, np.float32) > _FAR).to(span.device) & ~constant
    center = torch.where(far, low + span / 2, 0.0)
    if mode == "limits":
        scale = 2 / torch.where(constant, 2, span)
        offset = torch.where(constant, -low, -1 - scale * (low - center))
    elif mode == "gaussian":
        deviation = values.std(0) if len(values) > 1 else torch.ones_like(low)
        scale = 1 / torch.where(constant, 1, deviation)
        offset = -(values.mean(0) - center) * scale
    else:
        largest = values.abs().amax() if mode == "max_abs" else torch.ones_like(low[0])
        scale = torch.where(largest > 0, 1 / largest, 1.0).expand_as(low)
        offset, untouched = torch.zeros_like(low), range(values.shape[1]) if mode == "identity" else untouched
    kept = list(range(values.shape[1]) if mode == "max_abs" else untouched)
    _check_kept(kept, ends, constant)
    scale, offset = scale.clone(), offset.clone()
    scale[list(untouched)], offset[list(untouched)], center[kept] = 1.0, 0.0, 0.0
    normalizer.scale.copy_(scale)
    normalizer.offset.copy_(offset)
    normalizer.center.copy_(center)
    normalizer.varies.copy_(~constant)
    normalizer.constant.copy_(torch.where(constant, values[0], 0.0))
    normalizer.choose_dtype()
    return normalizer


def _check_kept(columns: Sequence[int], ends: tuple[np.ndarray, np.ndarray], constant: torch.Tensor) -> None:
    """Raise UserError where columns that are not shifted change by little more than the steps of float32."""
    steps = float_steps(*ends, np.float32)
    for column in columns:
        if steps[column] >= NOTICEABLE and not constant[column]:
            raise UserError(
                f"dimension {column} goes from {ends[0][column]:.12g} to {ends[1][column]:.12g}, and the network sees "
                f"it in float32, whose steps there are {steps[column]:.0%} of that; choose the normalisation limits "
                "or gaussian, which shift it first."
            )
