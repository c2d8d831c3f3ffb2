"""How fast a training update is beside Diffusion Policy's own code, on one CPU core."""

from __future__ import annotations

import json
from dataclasses import dataclass

from matplotlib.figure import Figure
from style import RESULTS, WIDTH, Scheme

NETS = {"small": "small network, 0.83 M parameters", "reference": "published network, 65.8 M"}
SIDES = {
    "baseline": "a plain PyTorch loop",
    "diffusion_policy": "Diffusion Policy's own code",
    "core beside": "this package before\nits CPU convolutions",
    "core": "this package",
}


@dataclass(frozen=True)
class Bar:
    """CPU seconds an update, and how many times as fast as the peer's: median, smallest and largest of the rounds."""

    seconds: float
    ratio: float
    low: float
    high: float


def bars(net: str) -> dict[str, Bar]:
    """The sides of one measurement by their keys in the record."""
    sides = json.loads((RESULTS / f"steps_per_second_{net}_cpu.json").read_text())["sides"]
    found = {}
    for key in SIDES:
        ratio = sides[key].get("times_the_diffusion_policy", {"median": 1.0, "min": 1.0, "max": 1.0})
        found[key] = Bar(sides[key]["cpu_seconds_per_update"], ratio["median"], ratio["min"], ratio["max"])
    return found


def draw(scheme: Scheme) -> Figure:
    """The figure in one scheme."""
    figure = Figure(figsize=(WIDTH, 2.7))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, (net, title) in zip(panels, NETS.items(), strict=True):
        for place, (key, bar) in enumerate(bars(net).items()):
            colour = scheme.blue if key == "core" else scheme.muted
            axes.barh(place, bar.ratio, 0.62, color=colour, alpha=1.0 if key == "core" else 0.45)
            if bar.high > bar.low:
                axes.plot([bar.low, bar.high], [place] * 2, color=scheme.text, linewidth=1)
            took = f"{bar.seconds:.1f} s" if bar.seconds >= 1 else f"{1000 * bar.seconds:.0f} ms"
            axes.text(max(bar.high, 1.0) + 0.04, place, f"{bar.ratio:.2f} x\n{took}", va="center", fontsize=9)
        axes.axvline(1.0, color=scheme.muted, linewidth=1, linestyle=":", zorder=0)
        axes.set_yticks(range(len(SIDES)), list(SIDES.values()))
        axes.tick_params(axis="y", length=0, labelcolor=scheme.text)
        axes.set(xlim=(0, 2.15), ylim=(len(SIDES) - 0.5, -0.5))
        axes.set_title(title, fontsize=9.5)
    label = "updates a CPU second, as a multiple of Diffusion Policy's own code; lines: smallest to largest round"
    figure.supxlabel(label, fontsize=9.5)
    return figure
