"""Denoisers: networks that predict from (model_input, t, condition)."""

from policy_accel.models.config import ModelConfig
from policy_accel.models.denoiser import Denoiser
from policy_accel.models.images import (
    AdmConfig,
    AdmUnet,
    DdpmConfig,
    DdpmUnet,
    DitConfig,
    Edm2Config,
    Edm2Unet,
    EdmConfig,
    EdmUnet,
    ImageTransformer,
)
from policy_accel.models.mlp import MLP, MLPConfig
from policy_accel.models.registry import build_denoiser, denoiser_configs, register_denoiser
from policy_accel.models.transformer import DiffusionTransformer, TransformerConfig
from policy_accel.models.unet import ConditionalUnet1d, UnetConfig

register_denoiser("unet", UnetConfig, ConditionalUnet1d)
register_denoiser("transformer", TransformerConfig, DiffusionTransformer)
register_denoiser("mlp", MLPConfig, MLP)
register_denoiser("ddpm", DdpmConfig, DdpmUnet, track="images")
register_denoiser("edm", EdmConfig, EdmUnet, track="images")
register_denoiser("adm", AdmConfig, AdmUnet, track="images")
register_denoiser("edm2", Edm2Config, Edm2Unet, track="images")
register_denoiser("dit", DitConfig, ImageTransformer, track="images")

__all__ = [
    "MLP",
    "ConditionalUnet1d",
    "Denoiser",
    "DiffusionTransformer",
    "MLPConfig",
    "ModelConfig",
    "TransformerConfig",
    "UnetConfig",
    "build_denoiser",
    "denoiser_configs",
    "register_denoiser",
]
