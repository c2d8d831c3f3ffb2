"""robosuite's own environments, made from robomimic's metadata: quiet, seeded, with the cameras that are asked for."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from typing import Any

import numpy as np

from policy_accel.errors import UserError, did_you_mean, one_of
from policy_accel.extras import to_install

from .rendering import opengl_errors, set_up_rendering
from .robosuite_versions import check_generation, composite_controllers, installed_version

ACTIONS = ("relative", "absolute")
INPUT_TYPES = dict(zip(ACTIONS, ("delta", "absolute"), strict=True))
_NO_KEYS = (
    "camera_segmentations",
    "hard_reset",
    "horizon",
    "render_camera",
    "render_gpu_device_id",
    "renderer",
    "renderer_config",
)


def import_robosuite() -> Any:
    """The module robosuite, imported without its greetings and warnings.

    Raises:
        UserError: it is not installed, or not of the supported generation.
    """
    installed_version()
    with suppress(UserError):  # only who draws needs OpenGL, and is told then
        set_up_rendering()
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with opengl_errors("MuJoCo cannot be imported", ImportError, AssertionError):
            import robosuite
            from robosuite.utils.log_utils import ROBOSUITE_DEFAULT_LOGGER
    except ImportError as error:
        raise UserError(
            f"robot tasks need robosuite, which cannot be imported ({error}); {to_install('robosuite')}"
        ) from error
    except AssertionError as error:  # it checks the graphics device that MuJoCo is told to use
        raise UserError(
            f"robosuite cannot be imported with MUJOCO_EGL_DEVICE_ID={os.environ.get('MUJOCO_EGL_DEVICE_ID')} and "
            f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')}; unset MUJOCO_EGL_DEVICE_ID."
        ) from error
    finally:
        logging.disable(disabled)
    ROBOSUITE_DEFAULT_LOGGER.setLevel(logging.ERROR)
    return robosuite


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with the global generators of NumPy and Python seeded, and put them back as they were afterwards.

    robosuite 1.5.1 draws everything from them and takes no seed. NumPy's is seeded as Diffusion Policy does, so that
    a seed means the same start.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"a robosuite environment's seed is {seed}; give 0 to {2**32 - 1}")
    before, before_python = np.random.get_state(), random.getstate()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
        random.setstate(before_python)


def complete_env_args(
    env_args: dict[str, Any],
    *,
    actions: str | None = None,
    cameras: Sequence[str] = (),
    image_size: int = 84,
    source: str = "env_args",
) -> dict[str, Any]:
    """robomimic's environment metadata as `make_robosuite` and robomimic itself take it.

    Args:
        env_args: `env_name`, `env_version`, `env_kwargs`.
        actions: "relative" or "absolute" to choose what the arms' controllers take; None leaves it as recorded.
        cameras: cameras whose frames are observed, square, `image_size` px.
        image_size: px.
        source: the file that `env_args` are from, for messages.

    Raises:
        UserError: as `check_generation` and `composite_controllers` do.
    """
    check_generation(env_args, source)
    completed = deepcopy(env_args)
    kwargs = {key: value for key, value in completed.get("env_kwargs", {}).items() if key not in _NO_KEYS}
    robots = kwargs.get("robots", "Panda")
    robots = [robots] if isinstance(robots, str) else list(robots)
    controllers = composite_controllers(kwargs.get("controller_configs"), len(robots), source)
    if actions is not None:
        kind = INPUT_TYPES[one_of("actions", actions, ACTIONS)]
        for controller in controllers:
            for part in controller["body_parts"].values():
                part["input_type"] = kind
    same = all(controller == controllers[0] for controller in controllers)
    kwargs.update(
        robots=robots,
        controller_configs=controllers[0] if same else controllers,
        has_renderer=False,
        has_offscreen_renderer=bool(cameras),
        use_camera_obs=bool(cameras),
        use_object_obs=True,
        ignore_done=True,
        camera_names=list(cameras) or ["agentview"],
        camera_heights=image_size,
        camera_widths=image_size,
        camera_depths=False,
    )
    return {**completed, "env_kwargs": kwargs}


def make_robosuite(env_args: dict[str, Any], *, hard_reset: bool = True, source: str = "env_args") -> Any:
    """robosuite's own environment, which never ends an episode, for the result of `complete_env_args`.

    Args:
        env_args: `env_name`, `env_kwargs`.
        hard_reset: build the model again at every reset.
        source: the file that `env_args` are from, for messages.

    Raises:
        UserError: an unknown environment, argument or camera; no OpenGL for cameras; robosuite is missing.
    """
    robosuite = import_robosuite()
    name, kwargs = env_args["env_name"], {**env_args["env_kwargs"], "hard_reset": hard_reset, "renderer": "mujoco"}
    if name not in robosuite.ALL_ENVIRONMENTS:
        raise UserError(
            f"{source}: robosuite has no environment '{name}'; {did_you_mean(name, robosuite.ALL_ENVIRONMENTS)}"
        )
    try:
        if kwargs["use_camera_obs"]:
            with opengl_errors(f"robosuite's camera {', '.join(kwargs['camera_names'])} cannot be drawn"):
                set_up_rendering()
                environment = _make_with_cameras(robosuite, name, kwargs)
        else:
            environment = robosuite.make(name, **deepcopy(kwargs))
    except TypeError as error:
        raise UserError(f"{source}: robosuite's {name} does not take these env_kwargs ({error}).") from error
    environment._destroy_sim = lambda: _release_simulation(environment)
    return environment


def check_cameras(environment: Any, names: Sequence[str]) -> None:
    """Raise UserError for a camera that the model of a robosuite environment does not have, with those that it has."""
    known = list(environment.sim.model.camera_names)
    for name in names:
        if name not in known:
            raise UserError(
                f"robosuite's {type(environment).__name__} has no camera '{name}'; cameras are: {', '.join(known)}"
            )


def add_render_context(sim: Any) -> None:
    """Give a simulation an off-screen context that shows what robosuite's own does: visual meshes, not collisions."""
    from robosuite.utils.binding_utils import MjRenderContextOffscreen

    context = MjRenderContextOffscreen(sim, device_id=-1)
    context.vopt.geomgroup[0], context.vopt.geomgroup[1] = 0, 1


def _make_with_cameras(robosuite: Any, name: str, kwargs: dict[str, Any]) -> Any:
    try:
        return robosuite.make(name, **deepcopy(kwargs))
    except ValueError:
        blind = robosuite.make(name, **{**deepcopy(kwargs), "use_camera_obs": False, "has_offscreen_renderer": False})
        check_cameras(blind, kwargs["camera_names"])
        raise


def _release_simulation(environment: Any) -> None:
    """Let go of a simulation without robosuite's full garbage collection, which takes longer than building the next.

    The simulation and its OpenGL context hold each other, so that link is cut.
    """
    if environment.sim is not None:
        environment.sim._render_context_offscreen = None
        environment.sim = None
