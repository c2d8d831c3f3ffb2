"""Image denoisers: networks that predict [B, C, H, W] from (x, t, condition)."""

from policy_accel.models.images.ddpm import DdpmConfig, DdpmUnet
from policy_accel.models.images.dit import DitConfig, ImageTransformer
from policy_accel.models.images.edm import EdmConfig, EdmUnet

__all__ = ["DdpmConfig", "DdpmUnet", "DitConfig", "EdmConfig", "EdmUnet", "ImageTransformer"]
