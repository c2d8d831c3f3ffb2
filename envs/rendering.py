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
def opengl_errors(failed: str, *passing: type[Exception]) -> Iterator[None]:
    """Turn whatever the block raises for want of OpenGL into one sentence; UserErrors pass.

    The import of MuJoCo, too, loads the OpenGL that MUJOCO_GL names at once, needed or not.

    Args:
        failed: beginning of the sentence, as "robosuite's camera agentview cannot be drawn".
        passing: errors that are not of OpenGL, as ImportError for a package that is missing.
    """
    try:
        yield
    except Exception as error:  # the back ends raise ImportError, AttributeError, RuntimeError, GLError, FatalError ...
        if isinstance(error, (UserError, *passing)):
            raise
        backend = os.environ.get("MUJOCO_GL", "")
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{failed} with MUJOCO_GL={backend or '(unset)'} ({reason}); set MUJOCO_GL=egl or MUJOCO_GL=osmesa, and on "
            f"Debian or Ubuntu: apt-get install {PACKAGES}"
        ) from error


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
