"""Off-screen OpenGL for MuJoCo: which back end, and one sentence when there is none.

MuJoCo and the simulators built on it read the environment variable MUJOCO_GL when they first draw: `egl` (graphics
card, or Mesa in software) or `osmesa` (software). https://mujoco.readthedocs.io/en/stable/programming/#using-opengl
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module

from policy_accel.errors import UserError

LIBRARIES = {"egl": ("libEGL.so.1", "libEGL.so"), "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")}
"""Back ends in the order of preference, with the names of their shared library on Linux."""
PACKAGES = "libegl1 libgl1 libgl1-mesa-dri libgles2 libosmesa6"
"""Debian and Ubuntu packages with which either back end works, without a graphics card too."""


def set_up_rendering() -> str:
    """Choose how MuJoCo draws off screen, before the first frame: the value of MUJOCO_GL.

    A value that the user set is kept. Without one, the first back end whose library can be loaded is put into the
    environment, where worker processes find it too; off Linux the system's own back end needs no choice ("").

    Raises:
        UserError: no back end is installed; the Debian packages are named.
    """
    _import_triton_first()
    chosen = os.environ.get("MUJOCO_GL", "")
    if chosen or not sys.platform.startswith("linux"):
        return chosen
    for backend, libraries in LIBRARIES.items():
        if any(_loads(library) for library in libraries):
            os.environ["MUJOCO_GL"] = backend
            return backend
    raise UserError(
        "rendering needs OpenGL off screen and neither EGL nor OSMesa is installed; "
        f"on Debian or Ubuntu: apt-get install {PACKAGES}"
    )


@contextmanager
def rendering_errors(what: str) -> Iterator[None]:
    """Turn the failure to make an OpenGL context inside the block into one sentence; other UserErrors pass.

    Args:
        what: who wants to draw, for the message, as "robosuite's camera agentview".
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the back ends raise ImportError, AttributeError, RuntimeError, GLError, FatalError ...
        raise UserError(f"{what} cannot be drawn {_why_not(error)}") from error


@contextmanager
def import_errors() -> Iterator[None]:
    """For the import of MuJoCo, which loads the OpenGL that MUJOCO_GL names at once, needed or not: one sentence when
    that fails. Packages that are missing, and checks of the importer, pass."""
    try:
        yield
    except (UserError, ImportError, AssertionError):
        raise
    except Exception as error:
        raise UserError(f"MuJoCo cannot be imported {_why_not(error)}") from error


def _why_not(error: Exception) -> str:
    backend = os.environ.get("MUJOCO_GL", "")
    reason = " ".join(str(error).split()) or type(error).__name__
    return (
        f"with MUJOCO_GL={backend or '(unset)'} ({reason}); set MUJOCO_GL=egl or MUJOCO_GL=osmesa, and on Debian or "
        f"Ubuntu: apt-get install {PACKAGES}"
    )


def _import_triton_first() -> None:
    """torch.compile imports Triton, which crashes the process once Mesa's EGL has drawn in it; the other order is fine.

    Processes without torch, as those of rollouts, never compile.
    """
    if "torch" in sys.modules:
        with suppress(ImportError):
            import_module("triton")


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
