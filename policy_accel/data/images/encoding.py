"""How an autoencoder made latents, which a file beside them, or in their archive, tells."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from policy_accel.errors import UserError, did_you_mean, one_line
from policy_accel.parsing import from_json, is_number

ENCODING = "encoding.json"
EDM2_NAME = "mean-std"
"""In the names of the files that EDM2's tool writes."""


@dataclass(frozen=True)
class Encoding:
    """How latents were made. A model is given (latent - shift) * scale.

    Attributes:
        scale, shift: one number, or one for each channel.
        moments: whether mean and then standard deviation of a normal distribution over latents are stored, 2 C
            channels, from which latents are drawn; else latents.
        unit_range: whether the autoencoder takes and gives pixels in [0, 1], not [-1, 1].
        autoencoder: its folder; None where nothing tells.
        pixels: the image set that was encoded; None where nothing tells.
        resolution: to which its images were brought; None as they were.
    """

    scale: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)
    moments: bool = False
    unit_range: bool = False
    autoencoder: str | None = None
    pixels: str | None = None
    resolution: int | None = None

    def to_json(self) -> str:
        """As it is written into files."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def numbers(self) -> str:
        """All that decides what a model is given, as text."""
        return f"{self.scale} {self.shift} {self.moments}"

    def faults(self, stored: int) -> Iterator[str]:
        """What does not fit latents that are stored in so many channels."""
        if self.moments and stored % 2:
            yield f"has {stored} channels, which are no means and as many deviations (moments); encode it again."
        channels = stored // 2 if self.moments else stored
        for name in ("scale", "shift"):
            count = len(getattr(self, name))
            if count not in (1, channels):
                yield f"has {channels} channels and {count} values of {name}; give one, or one for each channel."


EDM2 = Encoding(
    scale=tuple(0.5 / deviation for deviation in (4.17, 4.62, 3.71, 3.28)),
    shift=(5.81, 3.25, 0.12, -2.15),
    moments=True,
    unit_range=True,
)
"""Of the latents that EDM2 (Karras et al. 2024) trains on: brought to a deviation of 0.5."""


def encoding_of(content: bytes | str | dict[str, Any], where: str) -> Encoding:
    """The encoding that a JSON text, or its value, tells.

    Raises:
        UserError: it is damaged, has an unknown key or a value that means nothing; `where` is named.
    """
    try:
        found = content if isinstance(content, dict) else from_json(content)
        if not isinstance(found, dict):
            raise ValueError(f"it holds {type(found).__name__}, not an object")
        return Encoding(**{name: _checked(name, value) for name, value in found.items()})
    except ValueError as error:
        raise UserError(f"{where}: does not tell how latents were made ({one_line(error)}); correct it.") from error


def _checked(name: str, value: Any) -> Any:
    kinds = {field.name: str(field.type) for field in dataclasses.fields(Encoding)}
    if name not in kinds:
        raise ValueError(f"{name} is unknown; {did_you_mean(name, kinds)}")
    if name in ("scale", "shift"):
        values = list(value) if isinstance(value, list | tuple) else [value]
        if values and all(is_number(one) and (one > 0 or name == "shift") for one in values):
            return tuple(float(one) for one in values)
    elif "None" in kinds[name] and value is None:
        return None
    elif type(value).__name__ == kinds[name].removesuffix(" | None") and (name != "resolution" or value > 0):
        return value
    raise ValueError(f"{name} cannot be {value!r}")
