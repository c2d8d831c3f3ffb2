"""Observation encoders: camera frames and proprioception to one vector per observation."""

from policy_accel.models.encoders.config import EncoderConfig, ResNetConfig, ViTConfig
from policy_accel.models.encoders.observation import ObservationEncoder
from policy_accel.models.encoders.resnet import ResNet18, ResNetEncoder
from policy_accel.models.encoders.spatial_softmax import SpatialSoftmax
from policy_accel.models.encoders.vit import ViTEncoder

__all__ = [
    "EncoderConfig",
    "ObservationEncoder",
    "ResNet18",
    "ResNetConfig",
    "ResNetEncoder",
    "SpatialSoftmax",
    "ViTConfig",
    "ViTEncoder",
]
