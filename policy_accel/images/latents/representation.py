"""What the model sees of an image: pixels or latents as float32, and the way back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from policy_accel.data.images.encoding import Encoding, encoding_of
from policy_accel.images.generation.pictures import to_uint8

if TYPE_CHECKING:
    from policy_accel.images.latents.autoencoder import Autoencoder


@dataclass(frozen=True)
class Representation:
    """Pixels uint8 <-> [-1, 1] (x / 127.5 - 1), or latents brought to about unit deviation as their `encoding` says.

    Stable Diffusion's autoencoder has latents of standard deviation 1 / 0.18215 (Rombach et al. 2022, appendix D.1).

    Attributes:
        encoding: of latents; None for pixels.
        autoencoder: makes pixels of latents; None where there is none, and latents stay what they are.
    """

    encoding: Encoding | None = None
    autoencoder: Autoencoder | None = None

    @property
    def latents(self) -> bool:
        """Whether the model sees latents."""
        return self.encoding is not None

    @property
    def moments(self) -> bool:
        """Whether latents are drawn from stored moments."""
        return self.encoding is not None and self.encoding.moments

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """x0 float32 [B, C, H, W] of images as they are stored: uint8, or latents float.

        Args:
            images: [B, C, H, W]; of stored moments [B, 2 C, H, W].
            noise: standard normal [B, C, H, W], by which latents are drawn from moments; None takes the mean.
        """
        if self.encoding is None:
            return images.float() / 127.5 - 1.0
        values = images.float()
        if self.encoding.moments:
            mean, deviation = values.chunk(2, dim=1)
            values = mean if noise is None else mean + deviation * noise
        return (values - _column(self.encoding.shift, values.device)) * _column(self.encoding.scale, values.device)

    def decode(self, x0: Tensor) -> Tensor:
        """x0 [B, C, H, W] to uint8 pixels, or without an autoencoder to latents float32."""
        if self.encoding is None:
            return to_uint8(x0)
        return self.pixels(x0 / _column(self.encoding.scale, x0.device) + _column(self.encoding.shift, x0.device))

    def pixels(self, images: Tensor) -> Tensor:
        """Pixels uint8 of latents [B, C, H, W] as they are stored, if there is an autoencoder; else what is given."""
        if self.encoding is None or self.autoencoder is None or images.dtype == torch.uint8 or not len(images):
            return images
        return self.autoencoder.decode(images, self.encoding)

    def picture_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H, W) of the pictures that `see` takes for images of `shape`."""
        if self.autoencoder is None:
            return shape
        factor = self.autoencoder.factor
        return self.autoencoder.pixel_channels, factor * shape[1], factor * shape[2]

    def see(self, pictures: Tensor) -> Tensor:
        """x0 float32 [B, C, H, W] of pictures uint8 [B, 1 or 3, ...]; of latents the autoencoder's mean."""
        if self.encoding is None or self.autoencoder is None:
            return self.encode(pictures)
        unit_range = self.encoding.unit_range
        from policy_accel.images.latents.autoencoder import AT_ONCE

        pieces = pictures.split(AT_ONCE)
        means = torch.cat([self.autoencoder.encode(piece, unit_range=unit_range)[0] for piece in pieces])
        return (means - _column(self.encoding.shift, means.device)) * _column(self.encoding.scale, means.device)

    def record(self) -> dict[str, Any]:
        """JSON-able: what `Representation.of` makes it again from, but for the autoencoder."""
        if self.encoding is None:
            return {"latents": False, "latent_scale": 1.0}
        return {"latents": True, "encoding": dataclasses.asdict(self.encoding)}


def encoding_in(record: Mapping[str, Any], where: str) -> Encoding | None:
    """The encoding that `Representation.record` wrote, or an earlier version, which wrote a scale alone."""
    if not record["latents"]:
        return None
    return encoding_of(record.get("encoding", {"scale": record.get("latent_scale")}), where)


@lru_cache
def _column(values: tuple[float, ...], device: torch.device) -> Tensor | float:
    """A number, or numbers [C, 1, 1] on the device, where they are kept: each copy would wait for it."""
    return values[0] if len(values) == 1 else torch.tensor(values, device=device)[:, None, None]
