"""The feature networks that measure a set of images."""

from __future__ import annotations

import os

import numpy as np

from policy_accel.data.images.subset import ImageArray
from policy_accel.errors import UserError
from policy_accel.images.metrics.config import MetricsConfig
from policy_accel.images.metrics.features import FeatureExtractor, RandomConvFeatures
from policy_accel.images.metrics.inception import ENVIRONMENT_VARIABLE, inception_features
from policy_accel.images.metrics.resnet import resnet_features


def extractors_for(reference: ImageArray, config: MetricsConfig) -> list[FeatureExtractor]:
    """The feature networks for these images; the last is the best judge of what a picture shows."""
    channels, height, width = reference.shape[1:]
    if height != width:
        raise UserError(f"images of {height}x{width} pixels cannot be measured, only square ones; crop them first.")
    found: list[FeatureExtractor] = [RandomConvFeatures(channels, height)]
    inception = config.inception or (None if _latents(reference) else os.environ.get(ENVIRONMENT_VARIABLE))
    for name, path in (("resnet", config.resnet), ("inception", inception)):
        if path and (_latents(reference) or channels not in (1, 3)):
            raise UserError(
                f"evaluation.metrics.{name}={path}: takes images with 1 or 3 channels, not {kind_of(reference)}; "
                "leave it at null."
            )
    if config.resnet:
        found.append(resnet_features(config.resnet))
    if inception:
        found.append(inception_features(inception))
    return found


def distance_name(extractor: FeatureExtractor) -> str:
    """What the Fréchet distance on these features is called."""
    return "fid" if extractor.name == "inception" else f"fd_{extractor.name}"


def kind_of(images: ImageArray) -> str:
    """Type and shape of one image, such as uint8 (3, 32, 32)."""
    return f"{images.dtype} {images.shape[1:]}"


def _latents(images: ImageArray) -> bool:
    return bool(images.dtype != np.uint8)
