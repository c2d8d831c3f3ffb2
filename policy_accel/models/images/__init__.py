"""Image denoisers: networks that predict [B, C, H, W] from (x, t, condition)."""

from __future__ import annotations

from typing import Any

from policy_accel.errors import UserError
from policy_accel.models.config import ModelConfig
from policy_accel.models.denoiser import Denoiser
from policy_accel.models.images.ddpm import DdpmConfig, DdpmUnet
from policy_accel.models.images.dit import DitConfig, ImageTransformer
from policy_accel.models.images.edm import EdmConfig, EdmUnet

IMAGE_DENOISERS: dict[str, tuple[Any, Any]] = {
    "ddpm": (DdpmConfig, DdpmUnet),
    "edm": (EdmConfig, EdmUnet),
    "dit": (DitConfig, ImageTransformer),
}
"""Configuration and network of every image denoiser, by name."""


def build_image_denoiser(config: ModelConfig, *, channels: int, resolution: int, condition_dim: int = 0) -> Denoiser:
    """Build the image denoiser that `config` describes.

    Its `forward(x, t, condition)` takes x [B, C, H, W] float32, t [B] int64 or float32 as the process tells it, and
    condition [B, condition_dim] float32 or None (the same as zeros, the null class), and returns [B, C, H, W] float32.

    Args:
        config: one of the image model configurations.
        channels: C of the images or latents.
        resolution: H = W.
        condition_dim: classes (one-hot) plus augmentation parameters; 0 for an unconditional network.

    Raises:
        UserError: an unknown network, or settings that do not fit the images.
    """
    config_class, denoiser_class = IMAGE_DENOISERS.get(config.name, (None, None))
    if denoiser_class is None or not isinstance(config, config_class):
        raise UserError(f"model.name '{config.name}' does not go with these settings; choose model=NAME instead.")
    return denoiser_class(config, channels=channels, resolution=resolution, condition_dim=condition_dim)


__all__ = [
    "IMAGE_DENOISERS",
    "DdpmConfig",
    "DdpmUnet",
    "DitConfig",
    "EdmConfig",
    "EdmUnet",
    "ImageTransformer",
    "ModelConfig",
    "build_image_denoiser",
]
