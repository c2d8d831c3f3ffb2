"""What the model sees of an image: pixels or latents as float32, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from policy_accel.images.pictures import to_uint8


@dataclass(frozen=True)
class Representation:
    """Pixels uint8 <-> [-1, 1] (x / 127.5 - 1), or latents times `latent_scale`.

    Stable Diffusion's autoencoder has latents of standard deviation 1 / 0.18215 (Rombach et al. 2022, appendix D.1).
    """

    latents: bool = False
    latent_scale: float = 1.0

    def encode(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] as they are stored (uint8, or latents float) to x0 float32 of that shape."""
        return images.float() * self.latent_scale if self.latents else images.float() / 127.5 - 1.0

    def decode(self, x0: Tensor) -> Tensor:
        """x0 [B, C, H, W] to uint8 pixels, or to latents float32."""
        return x0 / self.latent_scale if self.latents else to_uint8(x0)
