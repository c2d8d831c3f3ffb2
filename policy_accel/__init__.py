"""Accelerated training of robot diffusion policies and image diffusion models on one training core."""

import os
import sys

if sys.argv[:1] == ["-m"] and sys.path[:1] == [os.getcwd()]:
    sys.path.pop(0)  # `python -m policy_accel` inside of a stranger's folder must not take a typing.py of that folder

from typing import TYPE_CHECKING, Any

from policy_accel.remarks import as_sentences

if TYPE_CHECKING:
    __version__: str
    from policy_accel.images.sharing.model import ImageModel
    from policy_accel.policy.controller import Policy

__all__ = ["ImageModel", "Policy", "__version__"]

# OpenMP reads it when torch is loaded. Threads that spin long while they wait take the core from the one that they wait
# for as soon as another process wants it too; those that never spin cost a third of the speed on a quiet machine.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
as_sentences()


def __getattr__(name: str) -> Any:
    if name == "Policy":  # imported when asked for: the command line must start without torch
        from policy_accel.policy.controller import Policy

        return Policy
    if name == "ImageModel":
        from policy_accel.images.sharing.model import ImageModel

        return ImageModel
    if name == "__version__":  # of what is installed; pyproject.toml alone states it
        from importlib.metadata import version

        return version("policy-accel")
    raise AttributeError(f"module 'policy_accel' has no attribute '{name}'")
