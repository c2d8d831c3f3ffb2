"""The images that latents were made of, which decoded images are measured against."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np

from policy_accel.data.images import ImageSet
from policy_accel.data.images.subset import ChannelSubset
from policy_accel.errors import UserError
from policy_accel.images.latents.representation import Representation
from policy_accel.images.sets import STABLE_DIFFUSION_SCALE, ImageSplit, ImageTaskConfig, load_split


def pixels_of(config: ImageTaskConfig, latents: ImageSplit, representation: Representation) -> ImageSplit | None:
    """The training and held-out images of a split of latents; None where latents are all that can be measured, which a
    warning says unless there is no autoencoder.

    Raises:
        UserError: task.pixels names images of which the latents were not made.
    """
    autoencoder, encoding = representation.autoencoder, representation.encoding
    if encoding is None or autoencoder is None:
        if config.pixels is not None:
            raise UserError(
                f"task.pixels={config.pixels} has no effect without an autoencoder; give task.autoencoder=FOLDER."
            )
        return None
    given = config.pixels or encoding.pixels
    if given is None:
        warnings.warn(
            f"{config.data}: does not say of which images its latents were made, so that measures compare latents; "
            "task.pixels=PATH names them.",
            stacklevel=1,
        )
        return None
    height = latents.train.shape[1] * autoencoder.factor
    of_pixels = dataclasses.replace(
        config,
        data=given,
        resolution=height if config.pixels else encoding.resolution,
        skip_bad_images=True,
        latent_scale=STABLE_DIFFUSION_SCALE,
        autoencoder=None,
        pixels=None,
    )
    try:
        found = load_split(of_pixels)
        if (found.held_out is None) != (latents.held_out is None):
            raise UserError(f"{given}: has other parts than {config.data}; give the images that were encoded.")
        _check(latents.train, found.train, autoencoder.factor)
        if latents.held_out is not None and found.held_out is not None:
            _check(latents.held_out, found.held_out, autoencoder.factor)
    except UserError as error:
        if config.pixels is not None:
            raise
        warnings.warn(f"{error} Until then measures compare latents; task.pixels=PATH names the images.", stacklevel=1)
        return None
    held_out = None if found.held_out is None else _in_colour(found.held_out, autoencoder.pixel_channels)
    return ImageSplit(_in_colour(found.train, autoencoder.pixel_channels), held_out, found.whole)


def _check(latents: ImageSet, pixels: ImageSet, factor: int) -> None:
    if pixels.latents:
        raise UserError(f"{pixels.source}: holds latents, not the images that latents were made of.")
    sizes = [factor * size for size in latents.shape[1:]]
    if list(pixels.shape[1:]) != sizes or len(pixels) != len(latents):
        height, width = pixels.shape[1:]
        raise UserError(
            f"{pixels.source}: holds {len(pixels)} images of {height} x {width}, and {latents.source} {len(latents)} "
            f"latents of images of {sizes[0]} x {sizes[1]}; give the images that were encoded."
        )
    if latents.labels is not None and pixels.labels is not None and not np.array_equal(latents.labels, pixels.labels):
        raise UserError(f"{pixels.source}: has other classes than {latents.source}; give the images that were encoded.")


def _in_colour(images: ImageSet, channels: int) -> ImageSet:
    """Grey images as they come out of an autoencoder of colour; not copied."""
    if images.shape[0] == channels:
        return images
    return dataclasses.replace(images, images=ChannelSubset(images.images, np.zeros(channels, np.int64)))
