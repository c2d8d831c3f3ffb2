"""Cameras of a robosuite environment: drawn only where somebody looks at the frame, and in its own OpenGL context."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

Sensor = Callable[[dict[str, Any]], np.ndarray]


def draw_when(environment: Any, wanted: Callable[[], bool]) -> None:
    """Let the cameras of a robosuite environment return their last frame, without drawing, while none is wanted.

    Only the drawing is left out: when a camera is sampled, and all other observations, stay as they are. Each control
    step whose length is a whole number of the simulator's steps samples every camera exactly once, so that what
    follows a step with frames wanted is the frame that robosuite alone would give. With another control frequency,
    where a step's frame may have been sampled in the step before, every frame is drawn.

    robosuite also reads a sensor for its shape alone (with an empty cache), when a hard reset makes its observables
    again; the last frame serves there too.

    Args:
        environment: robosuite's own environment, with cameras or without.
        wanted: asked whenever a camera is sampled; a camera that was never drawn is drawn in any case.
    """
    substeps = environment.control_timestep / environment.model_timestep
    whole = math.isclose(substeps, round(substeps), rel_tol=1e-9)
    frames: dict[str, np.ndarray] = {}

    def lazy(name: str, sensor: Sensor) -> Sensor:
        @wraps(sensor)  # also copies the modality, which robosuite keeps as an attribute of the function
        def frame(cache: dict[str, Any]) -> np.ndarray:
            if name not in frames or (cache and (wanted() or not whole)):
                use_context(environment)
                frames[name] = sensor(cache)
            return frames[name]

        return frame

    create = environment._create_camera_sensors

    def create_lazy(*arguments: Any, **options: Any) -> tuple[list[Sensor], list[str]]:
        sensors, names = create(*arguments, **options)
        return [lazy(name, sensor) for name, sensor in zip(names, sensors, strict=True)], names

    environment._create_camera_sensors = create_lazy
    for name, observable in environment._observables.items():
        if observable.modality == "image":
            observable._sensor = lazy(name, observable._sensor)


def use_context(environment: Any) -> None:
    """Make the OpenGL context of a robosuite environment, if it has one, the current one.

    robosuite draws in whichever is current, that is another environment's when there are several in a process.
    """
    context = None if environment.sim is None else environment.sim._render_context_offscreen
    if context is not None:
        context.gl_ctx.make_current()


def free_in_own_context(environment: Any) -> None:
    """Have the pictures and shapes that a robosuite environment keeps in OpenGL freed in its own context, at its hard
    resets and its end; in another environment's they would be those of that one."""
    destroy = environment._destroy_sim

    def destroy_in_own_context() -> None:
        use_context(environment)
        destroy()

    environment._destroy_sim = destroy_in_own_context
