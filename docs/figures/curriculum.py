"""The curriculum over timesteps: how often each is trained on, from the start to the end of a run, for three widths."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from style import WIDTH, Scheme

from policy_accel.acceleration.timestep_curriculum import CurriculumTimes
from policy_accel.acceleration.timesteps import CurriculumConfig
from policy_accel.diffusion.processes import DiscreteProcess
from policy_accel.policy.run import build_sampler
from policy_accel.policy.track import ROBOT

METHODS = ("clts_sharp", "clts", "clts_wide")
PROGRESS = (0.0, 0.25, 0.5, 0.75, 1.0)


def curriculum(method: str) -> CurriculumTimes:
    """The distribution of a preset over the times of Push-T's process."""
    config = ROBOT.config([f"method={method}"])
    process, times = build_sampler(config).objective.process, config.acceleration.timesteps
    assert isinstance(process, DiscreteProcess)
    assert isinstance(times, CurriculumConfig)
    return times.over(process)


def densities(times: CurriculumTimes) -> np.ndarray:
    """How many times as often as in uniform training each time is drawn, at each `PROGRESS`: [5, T]."""
    return np.stack([times.timesteps * times.probabilities(progress).numpy() for progress in PROGRESS])


def draw(scheme: Scheme) -> Figure:
    """The figure in one scheme."""
    figure = Figure(figsize=(WIDTH, 2.9))
    panels = figure.subplots(1, len(METHODS), sharey=True)
    for axes, method in zip(panels, METHODS, strict=True):
        times = curriculum(method)
        for progress, density in zip(PROGRESS, densities(times), strict=True):
            axes.plot(density, color=scheme.along(progress), label=f"{100 * progress:.0f} %")
        axes.set_title(f"{method}: width {times.width:g}")
        axes.set_xlim(0, times.timesteps - 1)
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("times as often as uniformly")
    panels[1].set_xlabel("timestep (0: clean, 99: noise)")
    panels[-1].legend(title="of the run", fontsize=9, title_fontsize=9, frameon=False, loc="lower left")
    return figure
