"""Cameras of a robosuite environment: drawn only where somebody looks at the frame, and in its own OpenGL context."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

import numpy as np

from .robosuite_make import import_robosuite

Sensor = Callable[[dict[str, Any]], np.ndarray]
_MARK = "contexts_kept_apart"


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


def keep_contexts_apart() -> None:
    """Have every drawing and freeing of robosuite's done in the OpenGL context that it belongs to.

    robosuite does both in whichever context is current. With several environments in a process, one that ends, or whose
    model is built again, would take away the textures and shapes of another, or leave none to draw in.
    """
    import_robosuite()
    from robosuite.utils.binding_utils import MjRenderContext

    if hasattr(MjRenderContext, _MARK):
        return
    setattr(MjRenderContext, _MARK, True)
    render, free = MjRenderContext.render, MjRenderContext.__del__
    last: list[weakref.ref[Any]] = []

    def render_in_own(context: Any, *arguments: Any, **options: Any) -> None:
        last[:] = [weakref.ref(context)]
        context.gl_ctx.make_current()
        render(context, *arguments, **options)

    def free_in_own(context: Any) -> None:
        with suppress(Exception):  # a context that could not be made has nothing to free
            context.gl_ctx.make_current()
            free(context)
        drawing = last[0]() if last else None
        with suppress(Exception):  # at the end of the process there may be nothing left to draw with
            if drawing is not None:  # and perhaps interrupted in the middle, by the collection of garbage
                drawing.gl_ctx.make_current()

    MjRenderContext.render, MjRenderContext.__del__ = render_in_own, free_in_own
