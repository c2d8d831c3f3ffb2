"""What a sampler asks: one denoiser for all levels of the noise, or one for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from policy_accel.diffusion.processes import Level

Denoiser = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ByLevel:
    """A denoiser that may be another one at each level: `at(level)` is asked there. The level is known on the host, so
    that choosing waits for nothing and leaves out what is not needed."""

    at: Callable[[Level], Denoiser]


def denoiser_at(denoise: Denoiser | ByLevel, level: Level) -> Denoiser:
    """The denoiser that is asked at `level`."""
    return denoise.at(level) if isinstance(denoise, ByLevel) else denoise
