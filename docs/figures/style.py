"""The look of all figures: two schemes for light and dark pages, one font, colours that the colour-blind tell apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER.parents[1] / "benchmarks" / "results"
WIDTH = 7.6
"""Inches; a page shows them as 72 px each, so that 9 points are 9 px or more."""


@dataclass(frozen=True)
class Scheme:
    """Colours of a figure on a transparent ground; the hues are those of Okabe and Ito."""

    text: str
    muted: str
    """Axes, grid and what is not ours."""
    blue: str
    orange: str
    green: str
    purple: str
    ramp: str
    """matplotlib's name of a range of colours, readable on the page from end to end."""
    ramp_ends: tuple[float, float]

    def along(self, share: float) -> Any:
        """The colour at a share, 0 to 1, of the ramp."""
        low, high = self.ramp_ends
        return matplotlib.colormaps[self.ramp](low + share * (high - low))


SCHEMES = {
    "light": Scheme("#1f2328", "#6e7781", "#0072b2", "#c44e00", "#007a5a", "#a3437c", "viridis", (0.0, 0.72)),
    "dark": Scheme("#e6edf3", "#8b949e", "#56b4e9", "#f0a04b", "#2fbf95", "#e08fc0", "viridis", (0.35, 1.0)),
}
SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "lines.linewidth": 1.8,
    "savefig.transparent": True,
}

Draw = Callable[[Scheme], Figure]


def save(draw: Draw, name: str, folder: Path = FOLDER) -> list[Path]:
    """Write a figure in each scheme to <name>_light.svg and <name>_dark.svg; the same figure gives the same bytes."""
    paths = []
    for of, scheme in SCHEMES.items():
        colours = dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), scheme.text)
        colours |= dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), scheme.muted)
        path = folder / f"{name}_{of}.svg"
        with matplotlib.rc_context({**SETTINGS, **colours, "svg.hashsalt": name}):
            draw(scheme).savefig(path, format="svg", metadata={"Date": None})
        paths.append(path)
    return paths
