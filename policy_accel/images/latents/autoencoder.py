"""An autoencoder of diffusers (`AutoencoderKL`) in a local folder: from pixels to latents and back."""

from __future__ import annotations

from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy_accel.data.images.encoding import Encoding
from policy_accel.errors import UserError, one_line
from policy_accel.extras import to_install
from policy_accel.images.generation.pictures import to_uint8
from policy_accel.parsing import is_number, read_record

AT_ONCE = 16
"""Latents that are decoded together: at 256 x 256 pixels they take some GB."""

_CONFIG, _WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
_CLASS = "AutoencoderKL"


class Autoencoder:
    """From pixels to latents and back; the weights are loaded when they are first needed, in float32.

    Args:
        folder: as diffusers' `save_pretrained` writes it, config.json beside weights in safetensors (which run
            nothing), or a pipeline's, in which it is vae/.
        device: where it computes.

    Attributes:
        folder: where config.json is.
        channels: C of a latent.
        pixel_channels: of its images, 1 or 3.
        factor: by which images are higher and wider than latents.
        scale, shift: as in `Encoding`, of its config.json.

    Raises:
        UserError: no such autoencoder, or diffusers is not installed.
    """

    def __init__(self, folder: Path | str, device: torch.device | str = "cpu") -> None:
        given = Path(folder).expanduser()
        inside = given / "vae"
        self.folder = (inside if not (given / _CONFIG).is_file() and (inside / _CONFIG).is_file() else given).resolve()
        self.device = torch.device(device)
        if not (self.folder / _CONFIG).is_file():
            raise UserError(
                f"{given}: is no folder of an autoencoder, {_CONFIG} is not in it; give one that diffusers' {_CLASS} "
                "was saved to."
            )
        facts = read_record(self.folder / _CONFIG, "get the autoencoder again")
        try:
            self._read(facts)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{self.folder / _CONFIG}: {one_line(error)}; give the folder of a diffusers {_CLASS}."
            ) from error
        self.weights = self.folder / _WEIGHTS
        if not self.weights.is_file():
            raise UserError(
                f"{self.folder}: has no {_WEIGHTS}; save the autoencoder in safetensors (other files of weights "
                "may run code and are not read)."
            )
        if find_spec("diffusers") is None:
            raise UserError(
                f"{self.folder}: an autoencoder needs the package diffusers, which is not installed; "
                f"{to_install('diffusers')}"
            )

    def _read(self, facts: dict[str, Any]) -> None:
        """Take over what config.json says; ValueError or TypeError where it cannot be."""
        if facts.get("_class_name", _CLASS) != _CLASS:
            raise ValueError(f"describes {facts['_class_name']}, not {_CLASS}")
        self.channels = _whole(facts, "latent_channels", 4)
        self.pixel_channels = _whole(facts, "in_channels", 3)
        if self.pixel_channels not in (1, 3) or _whole(facts, "out_channels", 3) != self.pixel_channels:
            raise ValueError(f"takes images of {self.pixel_channels} channels; known are 1 (grey) and 3 (RGB)")
        self.factor = 2 ** (len(facts.get("block_out_channels") or [0]) - 1)
        factor = facts.get("scaling_factor")
        scaling = _numbers("scaling_factor", 0.18215 if factor is None else factor)
        means, deviations = facts.get("latents_mean"), facts.get("latents_std")
        if means is not None and deviations is not None:  # diffusers then leaves shift_factor aside
            self.shift = _numbers("latents_mean", means)
            self.scale = tuple(scaling[0] / deviation for deviation in _numbers("latents_std", deviations))
        else:
            self.shift, self.scale = _numbers("shift_factor", facts.get("shift_factor") or 0.0), scaling
        if min(self.scale) <= 0:
            raise ValueError("its scale is not positive")

    @cached_property
    def network(self) -> Any:
        """On the device, in eval mode.

        Raises:
            UserError: weights that are damaged, or do not fit config.json.
        """
        from diffusers import AutoencoderKL

        try:
            network, told = AutoencoderKL.from_pretrained(
                self.folder,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                torch_dtype=torch.float32,
                output_loading_info=True,
            )
        except Exception as error:  # whatever the library finds
            raise UserError(
                f"{self.folder}: cannot be loaded ({one_line(error)[:200]}); get the autoencoder again."
            ) from error
        if wrong := [*told["missing_keys"], *told["unexpected_keys"], *told["mismatched_keys"]]:
            raise UserError(
                f"{self.weights}: does not fit {_CONFIG} ({len(wrong)} weights, such as {wrong[0]}); get both again."
            )
        return network.to(self.device).eval().requires_grad_(False)

    def load(self) -> Autoencoder:
        """Itself, with its weights loaded, which takes seconds."""
        _ = self.network
        return self

    def latent_shape(self, shape: tuple[int, int, int], source: str) -> tuple[int, int, int]:
        """(C, H, W) of the latents of images of a shape (C, H, W).

        Raises:
            UserError: images that it cannot take; `source` is named.
        """
        channels, height, width = shape
        if channels > self.pixel_channels:
            raise UserError(f"{source}: has colours, and {self.folder} takes grey images; choose another autoencoder.")
        if height % self.factor or width % self.factor:
            raise UserError(
                f"{source}: has images of {height} x {width} pixels, and {self.folder} makes one latent of "
                f"{self.factor} x {self.factor}; give a resolution that is a multiple of {self.factor}."
            )
        return self.channels, height // self.factor, width // self.factor

    @torch.no_grad()
    def encode(self, images: Tensor, *, unit_range: bool = False) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [B, C, H / factor, W / factor] of the latents of images.

        Args:
            images: uint8 [B, 1 or 3, H, W].
            unit_range: whether the autoencoder takes pixels in [0, 1], not [-1, 1].

        Raises:
            UserError: the result is not finite.
        """
        values = images.to(self.device).float()
        pixels = values / 255.0 if unit_range else values / 127.5 - 1.0
        found = self.network.encode(pixels.expand(-1, self.pixel_channels, -1, -1)).latent_dist
        mean, deviation = found.mean, found.std
        if not bool(torch.isfinite(mean).all() & torch.isfinite(deviation).all()):
            raise UserError(f"{self.folder}: its latents are not finite; get the autoencoder again.")
        return mean, deviation

    @torch.no_grad()
    def decode(self, latents: Tensor, encoding: Encoding) -> Tensor:
        """Pixels uint8 [B, 1 or 3, H factor, W factor] on the CPU, of latents [B, C, H, W] as `encode` makes them.

        Raises:
            UserError: latents of another number of channels; pixels that are not finite.
        """
        if latents.shape[1] != self.channels:
            raise UserError(
                f"{self.folder}: decodes latents of {self.channels} channels, and these have {latents.shape[1]}; give "
                "the autoencoder that made them."
            )
        parts = []
        for piece in latents.split(AT_ONCE):
            pixels = self.network.decode(piece.to(self.device, torch.float32)).sample
            parts.append(to_uint8(2.0 * pixels - 1.0 if encoding.unit_range else pixels).cpu())
        return torch.cat(parts)


def _whole(facts: dict[str, Any], name: str, default: int) -> int:
    value = facts.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"its {name} is {value!r}")
    return value


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(is_number(one) for one in values):
        raise ValueError(f"its {name} is {value!r}")
    return tuple(float(one) for one in values)
