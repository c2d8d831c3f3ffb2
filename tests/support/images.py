"""Images from a denoiser in one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from policy_accel.images.generation.generate import ImageGenerator
from policy_accel.images.generation.guidance import Model


def generate(model: Model, *, indices: Sequence[int], labels: Tensor | None = None, **options: Any) -> Tensor:
    """The images `indices`, float32 [n, C, H, W]; `options` are the fields of `ImageGenerator`."""
    return torch.cat(list(ImageGenerator(model, **options).batches(indices, labels)))
