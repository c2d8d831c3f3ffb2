"""Observation encoders: camera frames and proprioception to one vector per observation."""

from policy_accel.models.encoders.augmentation import Augmentation, AugmentationConfig
from policy_accel.models.encoders.config import EncoderConfig, ResNetConfig, ViTConfig
from policy_accel.models.encoders.observation import ObservationEncoder

__all__ = ["Augmentation", "AugmentationConfig", "EncoderConfig", "ObservationEncoder", "ResNetConfig", "ViTConfig"]
