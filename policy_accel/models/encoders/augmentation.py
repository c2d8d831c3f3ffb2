"""Random changes of the frames that a policy is trained on: shifts and colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from policy_accel.errors import UserError

GREY = (0.2989, 0.587, 0.114)
"""Of red, green and blue in the luminance (ITU-R BT.601, rounded as torchvision has it)."""
SHIFT, COLOURS = "[shift]", "[colours]"
"""What `Augmentation.draw` calls its numbers: no camera has such a name."""


@dataclass
class AugmentationConfig:
    """What is random about training frames beside the crop; all of it is off at 0, and never on in use."""

    shift: int = 0
    """Largest shift in px, up and down and to both sides; the edges are repeated. For whole frames (crop=null)."""
    brightness: float = 0.0
    """Colours are multiplied by a factor in [1 - brightness, 1 + brightness]."""
    contrast: float = 0.0
    """Colours keep a factor in [1 - contrast, 1 + contrast] of their distance to the frame's mean grey."""
    saturation: float = 0.0
    """Colours keep a factor in [1 - saturation, 1 + saturation] of their distance to their own grey."""
    hue: float = 0.0
    """Hues turn by a part in [-hue, hue] of the whole circle; at most 0.5."""

    @property
    def colours(self) -> tuple[float, float, float, float]:
        """Strengths of brightness, contrast, saturation and hue."""
        return self.brightness, self.contrast, self.saturation, self.hue

    def check(self, crop: int | None) -> None:
        """Raise UserError when a value is out of range, or has no place beside the crop."""
        for name in ("shift", "brightness", "contrast", "saturation", "hue"):
            if not getattr(self, name) >= 0:
                raise UserError(f"encoder.augmentation.{name}={getattr(self, name)} must not be negative; 0 is off.")
        if self.hue > 0.5:
            raise UserError(f"encoder.augmentation.hue={self.hue} must be at most 0.5, half of the circle.")
        if self.shift and crop is not None:
            raise UserError(
                f"encoder.augmentation.shift={self.shift} shifts whole frames, and a random encoder.crop={crop} is a "
                "shift already; set encoder.crop=null or shift=0."
            )


class Augmentation:
    """Shifts (Yarats et al. 2021, DrQ-v2: pad by repeating the edge, crop at random) and a jitter of colours.

    All frames that a sample's policy sees of one camera get the same: what it reads from several frames is what moved
    between them, and a shift or a light of its own for each would be a movement that never was. Every camera has its
    own. The colours are changed in the order brightness, contrast, saturation, hue.

    Args:
        config: checked; how strong.
        shapes: camera -> (H, W, C) of its frames.

    Raises:
        UserError: a shift as large as a frame; colours of frames that have none.
    """

    def __init__(self, config: AugmentationConfig, shapes: Mapping[str, tuple[int, int, int]]) -> None:
        self.config, self.cameras = config, tuple(shapes)
        for camera, (height, width, channels) in shapes.items():
            if config.shift >= min(height, width):
                raise UserError(
                    f"encoder.augmentation.shift={config.shift} is larger than the frames of {camera}, which are "
                    f"{height} x {width} px; 4 is usual for 84 px."
                )
            if any(config.colours) and channels != len(GREY):
                raise UserError(
                    f"encoder.augmentation changes red, green and blue, and frames of {camera} have {channels} "
                    "channels; set brightness, contrast, saturation and hue to 0."
                )

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The random numbers of `count` samples: shifts [B, cameras, 2] int64 down and to the right, colours
        [B, cameras, 4] in [-1, 1), to be multiplied by their strengths."""
        shape, device = (count, len(self.cameras)), generator.device
        drawn = {}
        if self.config.shift:
            limits = -self.config.shift, self.config.shift + 1
            drawn[SHIFT] = torch.randint(*limits, (*shape, 2), generator=generator, device=device)
        if any(self.config.colours):
            drawn[COLOURS] = 2 * torch.rand(*shape, 4, generator=generator, device=device) - 1
        return drawn

    def __call__(self, frames: Mapping[str, Tensor], drawn: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Frames uint8 [B, T, H, W, C] by camera, changed by what `draw` gave; on the device of the frames."""
        changed = {}
        for number, camera in enumerate(self.cameras):
            found = frames[camera]
            if SHIFT in drawn:
                found = shifted(found, drawn[SHIFT][:, number])
            if COLOURS in drawn:
                found = recoloured(found, drawn[COLOURS][:, number], self.config.colours)
            changed[camera] = found
        return changed


def shifted(frames: Tensor, by: Tensor) -> Tensor:
    """Frames [B, T, H, W, C] moved down and to the right by `by` [B, 2] px, the edges repeated."""
    batch, times, height, width, _ = frames.shape
    by = by.to(frames.device)
    rows, columns = (
        (torch.arange(side, device=frames.device) - by[:, axis, None]).clamp(0, side - 1)
        for axis, side in ((0, height), (1, width))
    )
    sample = torch.arange(batch, device=frames.device)[:, None, None, None]
    time = torch.arange(times, device=frames.device)[None, :, None, None]
    return frames[sample, time, rows[:, None, :, None], columns[:, None, None, :]]


def recoloured(frames: Tensor, drawn: Tensor, strengths: tuple[float, float, float, float]) -> Tensor:
    """Frames uint8 [B, T, H, W, 3] with brightness, contrast, saturation and hue changed, as torchvision's
    `adjust_brightness` and so on change float images one after the other.

    Args:
        frames: to change.
        drawn: [B, 4] in [-1, 1], times `strengths`: what is added to the factors 1, and the turn of the hue.
        strengths: of brightness, contrast, saturation, hue; what is 0 is left out.
    """
    values = drawn.to(frames.device)[:, :, None, None, None, None].unbind(1)
    parts = zip(strengths[:3], values[:3], strict=True)
    brightness, contrast, saturation = ((1 + strength * value).clamp(min=0) for strength, value in parts)
    x = frames.permute(0, 1, 4, 2, 3).float() / 255
    if strengths[0]:
        x = (brightness * x).clamp(0, 1)
    if strengths[1]:
        x = torch.lerp(_grey(x).mean(dim=(3, 4), keepdim=True), x, contrast).clamp(0, 1)
    if strengths[2]:
        x = torch.lerp(_grey(x), x, saturation).clamp(0, 1)
    if strengths[3]:
        x = _turned(x, strengths[3] * values[3][:, :, 0])
    return (255 * x).round().to(torch.uint8).permute(0, 1, 3, 4, 2).contiguous()


def _grey(x: Tensor) -> Tensor:
    """Luminance [B, T, 1, H, W] of x [B, T, 3, H, W]."""
    grey: Tensor = sum(share * part for share, part in zip(GREY, x.split(1, dim=2), strict=True))
    return grey


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """x [B, T, 3, H, W] in [0, 1] with the hue of HSV turned by `turn` [B, 1, 1, 1] of the circle.

    Smith 1978. From hue h in sixths, value V and chroma C the colours are V - C clamp(min(k, 4 - k), 0, 1) with
    k = (n + h) mod 6 and n = 5, 3, 1 for red, green and blue.
    """
    red, green, blue = x.unbind(2)
    value = x.amax(2)
    chroma = value - x.amin(2)
    safe = torch.where(chroma > 0, chroma, 1.0)
    of_red, of_green, of_blue = (green - blue) / safe, 2 + (blue - red) / safe, 4 + (red - green) / safe
    hue = torch.where(value == red, of_red, torch.where(value == green, of_green, of_blue)) + 6 * turn
    turned = []
    for n in (5, 3, 1):
        k = torch.remainder(n + hue, 6)
        turned.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(turned, dim=2).clamp(0, 1)
