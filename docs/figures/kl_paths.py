"""Brownian motion by a truncated Karhunen-Loeve series, and the noise that several times of one sample get from it."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from style import WIDTH, Scheme
from torch import Tensor

from policy_accel.diffusion.karhunen_loeve import KarhunenLoeveProcess, karhunen_loeve_process, white_noise_modes
from policy_accel.diffusion.processes import DiscreteProcess, vp_process

TRUNCATIONS = (1, 4, 16, 100)
TIMESTEPS = 100
KEPT = 4
"""Modes of the right panel, and times of one sample: those of method=kl."""
SEED = 3


def coefficients() -> Tensor:
    """One draw of all Z_k, [T] float64."""
    return torch.randn(TIMESTEPS, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)


def walk(modes: int) -> Tensor:
    """The Brownian motion of these coefficients, cut after `modes`, at 0/T .. T/T: [T + 1]; at 1 its variance is 1."""
    increments = coefficients()[:modes] @ white_noise_modes(TIMESTEPS, modes)
    return torch.cat([increments.new_zeros(1), increments.cumsum(0)]) / TIMESTEPS**0.5


def path_noise(process: KarhunenLoeveProcess) -> Tensor:
    """epsilon at every timestep of one path of a single number, [T]."""
    times = torch.arange(process.timesteps)[None]
    return process.path_noise(coefficients()[None, : process.modes, None], times)[0, :, 0]


def process(modes: int = KEPT) -> KarhunenLoeveProcess:
    """The truncated process of Push-T."""
    base: DiscreteProcess = vp_process("squaredcos_cap_v2", TIMESTEPS)
    return karhunen_loeve_process(base, modes)


def draw(scheme: Scheme) -> Figure:
    """The figure in one scheme."""
    figure = Figure(figsize=(WIDTH, 3.1))
    left, right = figure.subplots(1, 2)
    for place, modes in enumerate(TRUNCATIONS):
        last = modes == TRUNCATIONS[-1]
        colour = scheme.muted if last else scheme.along(place / (len(TRUNCATIONS) - 2))
        left.plot(walk(modes), color=colour, linewidth=1.0 if last else 1.8, zorder=0 if last else 1, label=f"{modes}")
    left.set(title="one Brownian path, cut after K modes", xlabel="time", ylabel="path")
    left.set_ylim(-0.6, 0.62)
    left.legend(title="modes K", ncols=4, loc="upper center", frameon=False, fontsize=9, title_fontsize=9)
    noise, times = path_noise(process()), torch.tensor([10, 35, 60, 85])
    right.plot(noise, color=scheme.blue)
    right.plot(times, noise[times], "o", color=scheme.blue)
    fresh = torch.randn(len(times), generator=torch.Generator().manual_seed(SEED))
    right.plot(times, fresh, "x", color=scheme.orange, markersize=7, markeredgewidth=2)
    right.text(7, 1.02, "independent noise", color=scheme.orange)
    right.text(97, -0.86, f"one path of {KEPT} modes", color=scheme.blue, ha="right")
    right.set_ylim(-1.05, 1.25)
    right.set(title="noise of four times of one sample", xlabel="timestep", ylabel="noise")
    for axes in (left, right):
        axes.set_xlim(0, TIMESTEPS)
        axes.grid(alpha=0.25)
    return figure
