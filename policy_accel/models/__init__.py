"""Denoisers: networks that predict from (model_input, t, condition)."""

from __future__ import annotations

from torch import nn

from policy_accel.errors import UserError, did_you_mean
from policy_accel.models.config import ModelConfig
from policy_accel.models.mlp import MLP, MLPConfig
from policy_accel.models.transformer import DiffusionTransformer, TransformerConfig
from policy_accel.models.unet import ConditionalUnet1d, UnetConfig

DENOISERS = {
    "unet": (UnetConfig, ConditionalUnet1d),
    "transformer": (TransformerConfig, DiffusionTransformer),
    "mlp": (MLPConfig, MLP),
}


def build_denoiser(
    config: ModelConfig, *, channels: int, horizon: int, condition_shape: tuple[int, int] | None
) -> nn.Module:
    """Build the denoiser that `config` describes.

    Args:
        config: one of the model configurations.
        channels: entries per step of the trajectory (action, plus observation when in-painting).
        horizon: steps of the trajectory.
        condition_shape: (n_obs_steps, observation_dim) of the global condition, or None for in-painting.
    """
    for config_class, denoiser_class in DENOISERS.values():
        if isinstance(config, config_class):
            return denoiser_class(  # type: ignore[call-arg]
                config,  # type: ignore[arg-type]
                channels=channels,
                horizon=horizon,
                condition_shape=condition_shape,
            )
    raise UserError(f"model.name '{config.name}' is unknown; {did_you_mean(config.name, DENOISERS)}")


__all__ = [
    "DENOISERS",
    "MLP",
    "ConditionalUnet1d",
    "DiffusionTransformer",
    "MLPConfig",
    "ModelConfig",
    "TransformerConfig",
    "UnetConfig",
    "build_denoiser",
]
