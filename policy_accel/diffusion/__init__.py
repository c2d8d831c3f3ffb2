"""The mathematics of diffusion: pure tensor functions and small dataclasses."""

from policy_accel.diffusion.batch import Batch, Noised
from policy_accel.diffusion.continuous import FlowProcess, SigmaProcess
from policy_accel.diffusion.grid import Grid, timestep_grid
from policy_accel.diffusion.karhunen_loeve import KarhunenLoeveProcess, karhunen_loeve_process
from policy_accel.diffusion.momentum import momentum_input_scale, momentum_process
from policy_accel.diffusion.objective import Objective, make_noised, squared_errors, weighted_squared_error
from policy_accel.diffusion.predictions import predicted_sample
from policy_accel.diffusion.processes import DiscreteProcess, Process, vp_process
from policy_accel.diffusion.repetition import Repetition
from policy_accel.diffusion.sampler import Sampler
from policy_accel.diffusion.samplers import Predictor, ddim, ddpm, dpm_solver_pp, euler, heun
from policy_accel.diffusion.schedules import alpha_bar_table
from policy_accel.diffusion.timesteps import TimestepDistribution, UniformTimes

__all__ = [
    "Batch",
    "DiscreteProcess",
    "FlowProcess",
    "Grid",
    "KarhunenLoeveProcess",
    "Noised",
    "Objective",
    "Predictor",
    "Process",
    "Repetition",
    "Sampler",
    "SigmaProcess",
    "TimestepDistribution",
    "UniformTimes",
    "alpha_bar_table",
    "ddim",
    "ddpm",
    "dpm_solver_pp",
    "euler",
    "heun",
    "karhunen_loeve_process",
    "make_noised",
    "momentum_input_scale",
    "momentum_process",
    "predicted_sample",
    "squared_errors",
    "timestep_grid",
    "vp_process",
    "weighted_squared_error",
]
