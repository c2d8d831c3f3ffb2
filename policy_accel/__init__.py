"""Accelerated training of robot diffusion policies and image diffusion models on one training core."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policy_accel.policy.controller import Policy

__all__ = ["Policy"]


def __getattr__(name: str) -> Any:
    if name == "Policy":  # imported when asked for: the command line must start without torch
        from policy_accel.policy.controller import Policy

        return Policy
    raise AttributeError(f"module 'policy_accel' has no attribute '{name}'")
