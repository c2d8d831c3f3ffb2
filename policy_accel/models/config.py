"""What every denoiser's configuration has in common."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ModelConfig:
    """Base of the denoiser configurations; `name` says which one it is."""

    name: str = ""
