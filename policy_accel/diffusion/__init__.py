"""The mathematics of diffusion: pure tensor functions and small dataclasses."""

from policy_accel.diffusion.objective import TARGETS, Noised, Objective, make_noised, weighted_squared_error
from policy_accel.diffusion.processes import DiscreteProcess, vp_process
from policy_accel.diffusion.samplers import SAMPLERS, SPACINGS, Grid, ddim, ddpm, dpm_solver_pp, timestep_grid
from policy_accel.diffusion.schedules import SCHEDULES, alpha_bar_table

__all__ = [
    "SAMPLERS",
    "SCHEDULES",
    "SPACINGS",
    "TARGETS",
    "DiscreteProcess",
    "Grid",
    "Noised",
    "Objective",
    "alpha_bar_table",
    "ddim",
    "ddpm",
    "dpm_solver_pp",
    "make_noised",
    "timestep_grid",
    "vp_process",
    "weighted_squared_error",
]
