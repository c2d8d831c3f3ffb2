"""What every denoiser's configuration has in common."""

from __future__ import annotations

from dataclasses import dataclass

from policy_accel.errors import UserError


@dataclass
class ModelConfig:
    """Base of the denoiser configurations; `name` says which one it is."""

    name: str = ""


def check_positive(**sizes: int | list[int]) -> None:
    """Raise UserError naming the first model setting that is not positive."""
    for name, value in sizes.items():
        if any(size < 1 for size in (value if isinstance(value, list) else [value])):
            raise UserError(f"model.{name}={value} must be at least 1.")


def check_probability(**shares: float) -> None:
    """Raise UserError naming the first model setting that does not lie in [0, 1)."""
    for name, value in shares.items():
        if not 0.0 <= value < 1.0:
            raise UserError(f"model.{name}={value} must lie in [0, 1).")
