"""What assigning noise does to a batch of two kinds of samples, and what the noise then gives away about the kind."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from style import WIDTH, Scheme
from torch import Tensor

from policy_accel.acceleration.diagnostics import Leak, condition_leak
from policy_accel.acceleration.noise_assignment import assign_noise

BATCH = 48
BATCHES = 40
"""Of which the leak is taken; the first is drawn."""
PLACES = torch.tensor([[-1.3, 0.5], [1.3, -0.5]], dtype=torch.float64)
SPREAD = 0.35
SEED = 0


@dataclass(frozen=True)
class Way:
    """A choice of noise for `BATCHES` batches: samples and noise [N, 2], kind [N] (0 or 1), and the leak."""

    title: str
    data: Tensor
    noise: Tensor
    kind: Tensor
    leak: Leak


def ways() -> list[Way]:
    """Independent noise, noise assigned in the whole batch, and inside the kinds: of the same draws."""
    generator = torch.Generator().manual_seed(SEED)
    kind = torch.arange(BATCH).remainder(2).repeat(BATCHES)
    shape = (len(kind), 2)
    data = PLACES[kind] + SPREAD * torch.randn(shape, generator=generator, dtype=torch.float64)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    batches = list(zip(data.split(BATCH), noise.split(BATCH), kind.split(BATCH), strict=True))
    whole = torch.cat([assign_noise(x, n).noise for x, n, _ in batches])
    grouped = torch.cat([assign_noise(x, n, groups=of).noise for x, n, of in batches])
    condition = torch.nn.functional.one_hot(kind).double()
    chosen = {"independent noise": noise, "assigned in the batch": whole, "assigned inside each kind": grouped}
    return [
        Way(title, data, given, kind, condition_leak(condition, given, seed=SEED)) for title, given in chosen.items()
    ]


def draw(scheme: Scheme) -> Figure:
    """The figure in one scheme."""
    figure = Figure(figsize=(WIDTH, 2.9))
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    for axes, way in zip(panels, ways(), strict=True):
        for kind, colour, marker in ((0, scheme.blue, "o"), (1, scheme.orange, "s")):
            rows = torch.nonzero(way.kind[:BATCH] == kind).flatten()
            data, noise = way.data[rows], way.noise[rows]
            for x, n in zip(data, noise, strict=True):
                axes.plot([x[0], n[0]], [x[1], n[1]], color=colour, linewidth=0.7, alpha=0.55)
            axes.plot(*data.T, marker, color=colour, markersize=4)
            axes.plot(*noise.T, marker, color=colour, markersize=4, markerfacecolor="none")
        axes.set_title(way.title)
        axes.set(xticks=[], yticks=[], xlim=(-3.2, 3.2), ylim=(-3.1, 2.6), aspect="equal")
        axes.spines[:].set_visible(False)
        share = max(0.0, way.leak.score)
        axes.text(0, -3.0, f"noise tells {100 * share:.0f} % of the kind", ha="center", fontsize=9)
    figure.supxlabel("filled: samples of two kinds; hollow: the noise that each is trained with", fontsize=9.5)
    return figure
