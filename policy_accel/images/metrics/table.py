"""Measures as one number to choose checkpoints by, and as a table for a terminal."""

from __future__ import annotations

import math
from typing import Any

from policy_accel.images.metrics.measure import SCORED

REACHED = 0.9
"""A measure by which noise reaches this share of what real images do tells nothing."""


def score(result: dict[str, Any], measure: str = SCORED) -> float:
    """One number to choose checkpoints by, higher is better: floor / value of a measure of which lower is better, of
    another value / floor, at most 1; 1 / (1 + distance from the floor) where that is not positive.

    1 means that by this measure the samples are as good as held-out real images. Better than that is chance or copying,
    not quality, and counts for no more: look at `copies`. Where there is no floor it is 1 / (1 + value), or the value.
    """
    found = result[measure]
    value, floor, lower = found["value"], found["floor"], found["better"] == "lower"
    if floor is None:
        return float(1.0 / (1.0 + value) if lower else min(value, 1.0))
    behind = value - floor if lower else floor - value
    if behind <= 0.0:
        return 1.0
    if floor <= 0.0:
        return float(1.0 / (1.0 + behind))
    return float(floor / value if lower else value / floor)


def table(result: dict[str, Any]) -> str:
    """The result of `Quality.measure` as lines for a terminal: every value beside its floor, and their ratio where both
    are of equally many images; else a line on that, and warnings where a Fréchet distance's floor is of so few images
    that their covariance is singular, and where pure noise does as well as real images.

    That samples hold fewer copies than real images do is no merit, and has no ratio: noise holds none."""
    lines = [f"{'measure':<20}{'value':>12}{'real images':>13}{'ratio':>9}{'samples':>9}  better"]
    floored = {name: one for name, one in result.items() if one["floor"] is not None}
    unlike = {name: one for name, one in floored.items() if one["floor_samples"] != one["samples"]}
    for name, found in result.items():
        ratio = found["value"] / found["floor"] if found["floor"] and name not in unlike else math.nan
        ratio = math.nan if name == "copies" and ratio <= 1.0 else ratio
        shown = f"{ratio:>8.2f}x" if math.isfinite(ratio) else f"{'-':>9}"
        note = f" ({found['features']})" if "features" in found else ""
        if "draws" in found:
            ends = " to ".join(f"{end:.5g}" for end in found["range"])
            note += f" ({found['counts']} of {len(found['draws'])} draws: mean {found['mean']:.5g}, {ends})"
        floor = f"{'-':>13}" if found["floor"] is None else f"{found['floor']:>13.5g}"
        lines.append(f"{name:<20}{found['value']:>12.5g}{floor}{shown}{found['samples']:>9}  {found['better']}{note}")
    if unlike:
        real, ours = (max(one[key] for one in unlike.values()) for key in ("floor_samples", "samples"))
        lines.append(
            f"No ratio where floors are of {real} real images and values of {ours}: these measures change with the "
            f"count. To compare, take --samples {real}, or hold out more (task.held_out=0.3)."
        )
    few = [name for name, one in result.items() if (one.get("floor_samples") or math.inf) < one.get("dimension", 0)]
    if few:
        first, numbers = result[few[0]], " and ".join(str(result[name]["dimension"]) for name in few)
        more = "hold out more" if first["floor_samples"] < first["samples"] else "draw more, and hold out as many"
        lines.append(
            f"FEW REAL IMAGES: {first['floor_samples']} for {' and '.join(few)}, on features of {numbers} numbers. "
            f"The floor means little from fewer images than that: {more}."
        )
    blind = [name for name, one in result.items() if "noise" in one and one["noise"] >= REACHED * _best(one)]
    if blind:
        gets = " and ".join(f"{result[name]['noise']:.2f}" for name in blind)
        lines.append(f"NO USE HERE: {' and '.join(blind)}, by which images of pure noise get {gets}.")
    return "\n".join(lines)


def _best(found: dict[str, Any]) -> float:
    """What real images get; about 1 by each of these measures, where it was not measured."""
    return 1.0 if found["floor"] is None else float(found["floor"])
