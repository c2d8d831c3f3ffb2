"""Image denoisers: networks that predict [B, C, H, W] from (x, t, condition)."""

from policy_accel.models.images.adm import AdmConfig, AdmUnet
from policy_accel.models.images.ddpm import DdpmConfig, DdpmUnet
from policy_accel.models.images.dit import DitConfig, ImageTransformer
from policy_accel.models.images.edm import EdmConfig, EdmUnet
from policy_accel.models.images.edm2 import Edm2Config, Edm2Unet

__all__ = [
    "AdmConfig",
    "AdmUnet",
    "DdpmConfig",
    "DdpmUnet",
    "DitConfig",
    "Edm2Config",
    "Edm2Unet",
    "EdmConfig",
    "EdmUnet",
    "ImageTransformer",
]
