"""Per-dimension affine normalisers, part of the policy and saved with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from policy_accel.errors import UserError, did_you_mean

MODES = ("limits", "gaussian", "max_abs", "identity")
_CONSTANT = 1e-4  # a dimension whose range (limits) or deviation (gaussian) is smaller is only shifted, never scaled


class Normalizer(nn.Module):
    """y = x * scale + offset for every dimension; the identity until it is fitted or loaded.

    `Normalizer(dims)` followed by `load_state_dict` restores a saved one: the buffers `scale` and `offset`,
    float32 [dims], are its whole state.
    """

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, dims: int):
        super().__init__()
        self.register_buffer("scale", torch.ones(dims))
        self.register_buffer("offset", torch.zeros(dims))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise x [..., D]."""
        return x * self.scale + self.offset

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Bring normalised y [..., D] back to the data's own units."""
        return (y - self.offset) / self.scale


def fit_normalizer(
    data: torch.Tensor | np.ndarray, mode: str = "limits", *, untouched: Sequence[int] = ()
) -> Normalizer:
    """Fit a normaliser on data [N, D], in float64.

    `limits` maps minimum and maximum of every dimension to -1 and 1; `gaussian` gives mean 0 and (unbiased) standard
    deviation 1; `max_abs` divides all dimensions by the one largest magnitude (Diffusion Policy's robomimic
    observations); `identity` changes nothing. A constant dimension (range or deviation below 1e-4) is shifted to 0 and
    keeps scale 1, as in `LinearNormalizer` of Diffusion Policy. The columns `untouched` keep their values.

    Raises:
        UserError: unknown mode; data that is not [N, D] with N >= 1; NaN or Inf in the data.
    """
    if mode not in MODES:
        raise UserError(f"there is no normaliser '{mode}'; {did_you_mean(mode, MODES)}")
    values = torch.as_tensor(data).to(torch.float64)
    if values.ndim != 2 or values.numel() == 0:
        raise UserError(f"a normaliser is fitted on [steps, dimensions], not on shape {tuple(values.shape)}.")
    if not values.isfinite().all():
        step, dimension = (~values.isfinite()).nonzero()[0].tolist()
        raise UserError(f"a normaliser cannot be fitted: step {step}, dimension {dimension} is not a finite number.")
    normalizer = Normalizer(values.shape[1]).to(values.device)
    if mode == "identity":
        return normalizer
    if mode == "max_abs":
        largest = values.abs().amax()
        normalizer.scale.fill_(1.0 if largest < _CONSTANT else 1.0 / float(largest))
        return normalizer
    if mode == "limits":
        low, high = values.amin(0), values.amax(0)
        constant = high - low < _CONSTANT
        scale = 2 / torch.where(constant, 2, high - low)
        offset = torch.where(constant, -low, -1 - scale * low)
    else:
        deviation = values.std(0) if len(values) > 1 else torch.zeros_like(values[0])
        scale = 1 / torch.where(deviation < _CONSTANT, 1, deviation)
        offset = -values.mean(0) * scale
    normalizer.scale.copy_(scale)
    normalizer.offset.copy_(offset)
    normalizer.scale[list(untouched)] = 1.0
    normalizer.offset[list(untouched)] = 0.0
    return normalizer
