"""The learning curve of a run as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policy_accel.files import replacing
from policy_accel.parsing import is_number
from policy_accel.run_files import noise_levels, read_metrics

MOST_LEVEL_CURVES = 5


def plot_learning_curve(run_dir: Path) -> Path:
    """Draw loss, validation loss and score over updates, and loss over noise level, from `run_dir`/metrics.jsonl to
    learning_curve.png.

    Returns:
        The path of the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    rows = [row for row in read_metrics(run_dir / "metrics.jsonl") if "step" in row]
    scored = [row for row in rows if is_number(row.get("score"))]
    by_level = [(row["step"], points) for row in rows if (points := noise_levels(row))]
    panels = 1 + bool(scored) + bool(by_level)
    figure = Figure(figsize=(7.0, 2.0 + 2.0 * panels), layout="constrained")
    axes = figure.subplots(panels, squeeze=False)[:, 0]
    for key, label in (("loss", "training loss"), ("validation_loss", "validation loss (EMA)")):
        points = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
        if points:
            axes[0].plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 30 else None)
    axes[0].set_yscale("log")
    axes[0].set_ylabel("loss")
    axes[0].legend()
    if scored:
        steps, scores = [row["step"] for row in scored], [row["score"] for row in scored]
        intervals, label = None, "score"
        if all(_interval(row) for row in scored):
            # Of equal scores the interval is one point, and rounding may put their mean beside it.
            below = [max(0.0, row["score"] - _interval(row)[0]) for row in scored]
            above = [max(0.0, _interval(row)[1] - row["score"]) for row in scored]
            intervals, label = [below, above], f"score ({scored[-1]['confidence']:.0%} interval)"
        axes[1].errorbar(steps, scores, yerr=intervals, marker="o", capsize=4, color="tab:green")
        ends = [end for row in scored for end in _interval(row)]
        if all(0.0 <= value <= 1.0 for value in (*scores, *ends)):
            axes[1].set_ylim(0.0, 1.05)
        axes[1].set_ylabel(label)
        axes[1].sharex(axes[0])
    axes[1 if scored else 0].set_xlabel("updates")
    if by_level:
        _draw_levels(axes[-1], by_level)
    figure.suptitle(run_dir.name)
    for axis in axes:
        axis.grid(alpha=0.3)
    path = run_dir / "learning_curve.png"
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return path


def _draw_levels(axes: Any, by_level: list[tuple[int, list[tuple[float, float]]]]) -> None:
    """Loss over log SNR at some evaluations, the last of them the darkest."""
    from matplotlib import colormaps

    count = min(MOST_LEVEL_CURVES, len(by_level))
    chosen = [by_level[(place + 1) * len(by_level) // count - 1] for place in range(count)]
    for place, (step, points) in enumerate(chosen, 1):
        shade = colormaps["Blues"](0.25 + 0.75 * place / count)
        axes.plot(*zip(*points, strict=True), marker=".", color=shade, label=f"after {step:,} updates")
    axes.set_yscale("log")
    axes.set_ylabel("loss by noise level (EMA)")
    axes.set_xlabel("log SNR, from noise to data")
    axes.legend()


def _interval(row: dict[str, Any]) -> list[float]:
    """[low, high] of a row's score; [] where the file has none, or something else."""
    ends = row.get("score_interval")
    if not (isinstance(ends, list) and len(ends) == 2 and is_number(row.get("confidence"))):
        return []
    return ends if all(map(is_number, ends)) else []
