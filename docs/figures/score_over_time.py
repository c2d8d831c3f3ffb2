"""Score on Push-T against the training time on one CPU core: ours as measured, the published one as estimated."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from matplotlib.figure import Figure
from style import RESULTS, WIDTH, Scheme

from policy_accel.policy.track import ROBOT

PUBLISHED = {"best": 0.95, "last ten": 0.91}
"""Chi et al. 2023, "Diffusion Policy" (arXiv 2303.04137), table 1: Push-T from state, U-Net, best checkpoint and mean
of the last ten."""
ADAMW = ("AdamW, 1,500 updates", "AdamW, 4,000 updates (recipe=small)")
MUON = ("Muon, 1,000 updates", "Muon, 1,500 updates (recipe=fast)")
THEIRS = "published settings, 1,500 updates"
TICKS = {1: "1 min", 10: "10 min", 60: "1 h", 600: "10 h", 1440: "1 day", 14400: "10 days"}


@dataclass(frozen=True)
class Point:
    """Minutes of a core, score of three training seeds and 500 starts, its interval of 95 %."""

    minutes: float
    score: float
    interval: tuple[float, float]
    updates: int


def points(rungs: tuple[str, ...]) -> list[Point]:
    """What was measured on some rungs of the ladder."""
    ladder = {row["rung"]: row for row in _read("pusht_speedrun_cpu.json")["rungs"]}
    rows = [ladder[rung] for rung in rungs]
    return [Point(row["cpu_seconds"] / 60, row["score"], tuple(row["score_interval"]), row["updates"]) for row in rows]


def published_minutes() -> tuple[float, int, float]:
    """What the published training would take on a core, estimated: minutes, its updates, measured seconds an update."""
    seconds = _read("steps_per_second_reference_cpu.json")["sides"]["diffusion_policy"]["cpu_seconds_per_update"]
    return published_updates() * seconds / 60, published_updates(), seconds


@cache
def published_updates() -> int:
    """Updates of `recipe=diffusion_policy`, the published set-up."""
    return ROBOT.config(["recipe=diffusion_policy"]).training.steps


def draw(scheme: Scheme) -> Figure:
    """The figure in one scheme."""
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    axes.set(xscale="log", xlim=(1, 60_000), ylim=(0, 1.14), ylabel="score on Push-T, key-points")
    axes.set_xticks(list(TICKS), list(TICKS.values()))
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    minutes, updates, seconds = published_minutes()
    low, high = PUBLISHED["last ten"], PUBLISHED["best"]
    axes.axhspan(low, high, color=scheme.muted, alpha=0.22, linewidth=0)
    axes.text(
        55_000, high + 0.02, f"published: {high} best, {low} mean of the last ten", color=scheme.muted, ha="right"
    )
    axes.plot([minutes] * 2, [low, high], color=scheme.muted, linewidth=5, solid_capstyle="butt")
    axes.annotate(
        f"its {updates:,} updates at {seconds:.2f} s,\nmeasured with its own code:\n"
        f"{minutes / 1440:.1f} days of one core (estimated)",
        (minutes, low), (55_000, 0.63), color=scheme.muted, ha="right", va="center",
        arrowprops={"arrowstyle": "-", "color": scheme.muted, "shrinkB": 3},
    )  # fmt: skip
    for rungs, colour, marker in ((ADAMW, scheme.orange, "s"), (MUON, scheme.blue, "o")):
        found = points(rungs)
        x = [point.minutes for point in found]
        axes.plot(x, [point.score for point in found], marker=marker, markersize=5, color=colour, zorder=3)
        bounds = zip(*(point.interval for point in found), strict=True)
        axes.fill_between(x, *bounds, color=colour, alpha=0.3, linewidth=0)
    first, last = points(MUON)
    axes.annotate(
        f"ours, Muon: {first.score:.2f} after {first.minutes:.1f} min, {last.score:.2f} after {last.minutes:.1f} min",
        (last.minutes, last.score), (3.3, 1.07), color=scheme.blue, va="center",
        arrowprops={"arrowstyle": "-", "color": scheme.blue, "shrinkB": 4},
    )  # fmt: skip
    first, last = points(ADAMW)
    axes.annotate(
        f"ours, AdamW: {first.score:.2f} after {first.minutes:.1f} min,\n{last.score:.2f} after {last.minutes:.1f} min",
        (last.minutes, last.score), (7, 0.77), color=scheme.orange, va="center",
        arrowprops={"arrowstyle": "-", "color": scheme.orange, "shrinkB": 4},
    )  # fmt: skip
    (theirs,) = points((THEIRS,))
    error = [[theirs.score - theirs.interval[0]], [theirs.interval[1] - theirs.score]]
    axes.errorbar([theirs.minutes], [theirs.score], yerr=error, fmt="D", color=scheme.muted, markersize=5)
    axes.text(
        theirs.minutes * 1.2, theirs.score,
        "published settings on our small network,\n"
        f"{theirs.updates:,} updates in place of {updates:,}: {theirs.score:.2f}",
        color=scheme.muted, va="center",
    )  # fmt: skip
    axes.set_xlabel("training time on one CPU core; bands: 95 % over 3 training seeds, 500 starts each")
    return figure


@cache
def _read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text())
