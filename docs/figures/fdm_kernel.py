"""FDM's momentum kernel on the process of Push-T: what is left of the sample, and the input's scale."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from style import WIDTH, Scheme

from policy_accel.acceleration.build import build_objective
from policy_accel.acceleration.config import AccelerationConfig
from policy_accel.acceleration.momentum import (
    MomentumConfig,
    NaturalMomentumConfig,
    SigmaMomentumConfig,
    UnscaledConfig,
)
from policy_accel.diffusion.config import DiffusionConfig
from policy_accel.diffusion.processes import DiscreteProcess

KINDS: dict[str, MomentumConfig] = {
    "plain": MomentumConfig(),
    "fdm": NaturalMomentumConfig(),
    "fdm_sigma": SigmaMomentumConfig(),
    "fdm_one": UnscaledConfig(),
}
LABELS_LEFT = {"plain": (26, 0.72, "plain"), "fdm": (56, 0.85, "fdm"), "fdm_one": (3, 1.05, "fdm_one")}
LABELS_LEFT["fdm_sigma"] = (29, 1.05, "fdm_sigma (near 0 at the last time)")
LABELS_RIGHT = {"plain": (30, 0.45, "plain"), "fdm": (90, 0.1, "fdm"), "fdm_one": (94, 130, "fdm_one")}
LABELS_RIGHT["fdm_sigma"] = (94, 40, "fdm_sigma (near 1 at the last)")


def process(kind: str) -> DiscreteProcess:
    """The process of Push-T with one choice of momentum."""
    made = build_objective(DiffusionConfig(), AccelerationConfig(momentum=KINDS[kind])).process
    assert isinstance(made, DiscreteProcess)
    return made


def left_of_the_sample(kind: str) -> torch.Tensor:
    """The factor of the clean sample in what the network sees, [T]."""
    made = process(kind)
    return made.alphas * made.input_scales


def size_of_the_input(kind: str) -> torch.Tensor:
    """Root mean square of what the network sees, of data of unit variance, [T]."""
    made = process(kind)
    return made.input_scales * (made.alphas.square() + made.sigmas.square()).sqrt()


def draw(scheme: Scheme) -> Figure:
    """The figure in one scheme."""
    figure = Figure(figsize=(WIDTH, 3.0))
    left, right = figure.subplots(1, 2)
    colours = {"plain": scheme.muted, "fdm": scheme.blue, "fdm_sigma": scheme.orange, "fdm_one": scheme.purple}
    for kind, colour in colours.items():
        dashes = "--" if kind == "fdm_one" else "-"
        left.plot(left_of_the_sample(kind), dashes, color=colour)
        right.plot(size_of_the_input(kind), dashes, color=colour)
    left.set(title="factor of the clean sample in the input", ylim=(0, 1.16))
    right.set(title="size of the input (root mean square)", yscale="log", ylim=(0.005, 3000))
    for axes, places in ((left, LABELS_LEFT), (right, LABELS_RIGHT)):
        for kind, (x, y, words) in places.items():
            axes.text(x, y, words, color=colours[kind], ha="right" if axes is right else "left")
        axes.set(xlabel="timestep (0: clean, 99: noise)", xlim=(0, 99))
        axes.grid(alpha=0.25)
    return figure
