"""Tables and the picture of `image_methods.py`: how much less each arm costs, with intervals over training seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

COSTS = ("samples", "training_flops", "training_seconds")
SHARES = (0.0, 0.25, 0.5)
"""Places of the qualities between the last that all runs of the first arm reach and its first evaluation, in the
logarithm of the distance."""

Run = dict[str, Any]


def cost_to(run: Run, quality: str, distance: float, cost: str) -> float:
    """What the run spent until its distance fell to `distance`; infinite when it never did."""
    before: tuple[float, float] | None = None
    for point in run["curve"]:
        value, spent = point["measures"][quality][0], float(point[cost])
        if value <= distance:
            if before is None:
                return spent
            share = (math.log(before[0]) - math.log(distance)) / (math.log(before[0]) - math.log(value))
            return before[1] + share * (spent - before[1])
        before = value, spent
    return math.inf


def geometric(ratios: Sequence[float]) -> dict[str, Any]:
    """Geometric mean of ratios, and Student's 95 % interval of it (None for one)."""
    logs = np.log(ratios)
    mean, interval = float(logs.mean()), None
    if len(logs) > 1:
        half = float(student.ppf(0.975, len(logs) - 1)) * float(logs.std(ddof=1)) / math.sqrt(len(logs))
        interval = [_shown(math.exp(mean - half)), _shown(math.exp(mean + half))]
    return {"mean": _shown(math.exp(mean)), "interval": interval, "seeds": len(logs)}


def _shown(value: float) -> float:
    return float(f"{value:.4g}")


def tables(runs: Sequence[Run], quality: str) -> dict[str, Any]:
    """Of the runs of one base, whose first arm is what the others are compared with.

    Returns:
        "final": arm -> distance of the best average at the end, and its ratio to the first arm's, paired by seed;
        "speed_ups": distance -> arm -> cost -> the first arm's cost over the arm's, paired by seed. An arm that did not
        get there with every seed has "at_most" in its place: the largest that its whole training leaves possible.
    """
    good = [run for run in runs if "failed" not in run and run["curve"]]
    arms = list(dict.fromkeys(run["arm"] for run in good))
    if not arms:
        return {}
    by_arm = {arm: {run["seed"]: run for run in good if run["arm"] == arm} for arm in arms}
    first = by_arm[arms[0]]
    ends = {arm: {seed: _end(run, quality) for seed, run in own.items()} for arm, own in by_arm.items()}
    final = {
        arm: {
            "distance": geometric(list(own.values())),
            "over_first": geometric([own[seed] / ends[arms[0]][seed] for seed in own if seed in first]),
        }
        for arm, own in ends.items()
    }
    last = max(min(point["measures"][quality][0] for point in run["curve"]) for run in first.values())
    begin = min(run["curve"][0]["measures"][quality][0] for run in first.values())
    speed_ups = {
        f"{distance:.4g}": {
            arm: {cost: _speed_up(first, by_arm[arm], quality, distance, cost) for cost in COSTS} for arm in arms
        }
        for distance in (last * (begin / last) ** share for share in SHARES)
    }
    return {"final": final, "speed_ups": speed_ups}


def label(arm: str, arms: Sequence[str]) -> str:
    """`arm` in few words: its method, and what it sets that not all of the arms set."""
    method, *settings = arm.split(":")
    own = [setting for setting in settings if not all(setting in other.split(":") for other in arms)]
    short = (key.replace("/", ".").rpartition(".")[2] + equals + value for key, equals, value in map(_parts, own))
    return " ".join([method, *short])


def _parts(setting: str) -> tuple[str, str, str]:
    return setting.partition("=")


def _end(run: Run, quality: str) -> float:
    return float(run["final"]["measures"][quality]["value"])


def _speed_up(first: dict[int, Run], own: dict[int, Run], quality: str, distance: float, cost: str) -> dict[str, Any]:
    seeds = [seed for seed in own if seed in first]
    wanted = {seed: cost_to(first[seed], quality, distance, cost) for seed in seeds}
    spent = {seed: cost_to(own[seed], quality, distance, cost) for seed in seeds}
    if all(math.isfinite(value) for value in spent.values()):
        return geometric([wanted[seed] / spent[seed] for seed in seeds])
    whole = [wanted[seed] / float(own[seed][cost]) for seed in seeds if not math.isfinite(spent[seed])]
    return {"at_most": _shown(max(whole)), "reached": len(seeds) - len(whole), "seeds": len(seeds)}


def markdown(base: str, found: dict[str, Any]) -> str:
    """A line for each arm: distance at the end, beside the first arm's, and how many times fewer images."""
    if not found:
        return f"{base}: no run yet"
    distances = list(found["speed_ups"])
    head = [
        "arm",
        "distance at the end",
        "over the first arm's",
        *(f"images to {one}, times fewer" for one in distances),
    ]
    lines = [f"**{base}**", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for arm, end in found["final"].items():
        cells = [label(arm, list(found["final"])), _cell(end["distance"]), _cell(end["over_first"])]
        cells += [_cell(found["speed_ups"][one][arm]["samples"]) for one in distances]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: dict[str, Any]) -> str:
    if "at_most" in value:
        return f"at most {value['at_most']:.2f} ({value['reached']} of {value['seeds']} got there)"
    interval = (
        "" if value["interval"] is None else f"\u00a0[{value['interval'][0]:.3g},\u00a0{value['interval'][1]:.3g}]"
    )
    return f"{value['mean']:.3g}{interval}"


def draw(runs: Sequence[Run], quality: str, path: Path) -> None:
    """Distance over arithmetic, which counts an image at several times as several, a panel for each base: the geometric
    mean of the seeds, and each seed thin."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    good = [run for run in runs if "failed" not in run and run["curve"]]
    bases = list(dict.fromkeys(run["base"] for run in good))
    if not bases:
        return
    figure = Figure(figsize=(6.5 * len(bases), 5.2), layout="constrained")
    for axes, base in zip(figure.subplots(1, len(bases), squeeze=False)[0], bases, strict=True):
        own = [run for run in good if run["base"] == base]
        arms = list(dict.fromkeys(run["arm"] for run in own))
        for number, arm in enumerate(arms):
            curves = [run["curve"] for run in own if run["arm"] == arm]
            spent = [point["training_flops"] / 1e12 for point in curves[0]]
            values = np.array([[point["measures"][quality][0] for point in curve] for curve in curves])
            style = {"color": "black" if number == 0 else f"C{(number - 1) % 10}", "ls": "-" if number < 11 else "--"}
            name, width = label(arm, arms), 2.0 if number == 0 else 1.4
            axes.plot(spent, np.exp(np.log(values).mean(0)), lw=width, label=name, **style)
            for curve in values:
                axes.plot(spent, curve, lw=0.4, alpha=0.5, **style)
        floor = own[0]["curve"][-1]["measures"][quality][1]
        of_real = f" (held-out real images: {floor:.2g})" if floor else ""
        axes.set(xscale="log", yscale="log", xlabel="training, TFLOP", ylabel=quality, title=f"{base}{of_real}")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter(ScalarFormatter())
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)  # beside no curve
    figure.savefig(path, dpi=110)
