"""Lift's cube, which has another size in every episode: the size drawn and put into the compiled model.

robosuite builds and compiles the whole model anew for it (0.2 s, and 1 s with a camera). Only the numbers below depend
on the size of a free box with its frame at its centre; MuJoCo derives the rest from them (`mj_setConst`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

DENSITY = 1000.0
"""kg / m^3 of robosuite's box."""


def redraw_cube(environment: Any) -> None:
    """Give the cube of robosuite's Lift a new size, from the global generator of NumPy as its own reset draws it."""
    import mujoco

    cube = environment.cube
    size = np.array([np.random.uniform(0.020, 0.022) for _ in range(3)])  # noqa: NPY002
    cube.size = list(size)
    names = {geom.get("name") for geom in cube.get_obj().iter("geom")}
    for geom in environment.model.root.iter("geom"):
        if geom.get("name") in names:
            geom.set("size", " ".join(map(str, size)))
    model = environment.sim.model._model
    resize_free_box(model, model.body(cube.root_body).id, size)
    mujoco.mj_setConst(model, mujoco.MjData(model))


def resize_free_box(model: Any, body: int, size: np.ndarray) -> None:
    """Set the half-sizes [3] (m) of a free body that is one box of `DENSITY` (and its visual twin) in an MjModel."""
    geoms = np.flatnonzero(model.geom_bodyid == body)
    radius = np.sqrt((size**2).sum())
    model.geom_size[geoms] = size
    model.geom_aabb[geoms, 3:] = size
    model.geom_rbound[geoms] = radius
    tree = int(model.body_bvhadr[body])
    model.bvh_aabb[tree : tree + int(model.body_bvhnum[body]), 3:] = size
    turning = int(model.body_dofadr[body]) + 3
    model.dof_length[turning : turning + 3] = radius
    x, y, z = size
    mass = DENSITY * (8 * x * y * z)
    model.body_mass[body] = mass
    model.body_inertia[body] = mass * np.array([y * y + z * z, x * x + z * z, x * x + y * y]) / 3
