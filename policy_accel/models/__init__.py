"""Denoisers: networks that predict from (model_input, t, condition)."""

from __future__ import annotations

from typing import Any

from policy_accel.errors import UserError
from policy_accel.models.config import ModelConfig
from policy_accel.models.denoiser import Denoiser
from policy_accel.models.mlp import MLP, MLPConfig
from policy_accel.models.transformer import DiffusionTransformer, TransformerConfig
from policy_accel.models.unet import ConditionalUnet1d, UnetConfig

DENOISERS: dict[str, tuple[Any, Any]] = {
    "unet": (UnetConfig, ConditionalUnet1d),
    "transformer": (TransformerConfig, DiffusionTransformer),
    "mlp": (MLPConfig, MLP),
}


def build_denoiser(
    config: ModelConfig, *, channels: int, horizon: int, condition_shape: tuple[int, int] | None
) -> Denoiser:
    """Build the denoiser that `config` describes.

    Args:
        config: one of the model configurations.
        channels: entries per step of the trajectory (action, plus observation when in-painting).
        horizon: steps of the trajectory.
        condition_shape: (n_obs_steps, observation_dim) of the global condition, or None for in-painting.
    """
    config_class, denoiser_class = DENOISERS.get(config.name, (None, None))
    if denoiser_class is None or not isinstance(config, config_class):
        raise UserError(f"model.name '{config.name}' does not go with these settings; choose model=NAME instead.")
    return denoiser_class(config, channels=channels, horizon=horizon, condition_shape=condition_shape)


__all__ = [
    "DENOISERS",
    "MLP",
    "ConditionalUnet1d",
    "Denoiser",
    "DiffusionTransformer",
    "MLPConfig",
    "ModelConfig",
    "TransformerConfig",
    "UnetConfig",
    "build_denoiser",
]
