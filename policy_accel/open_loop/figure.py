"""Predicted beside demonstrated actions, as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.files import replacing

SHOWN = 8
"""Numbers of an action that are drawn: the first ones."""
ONE_COLUMN = 4
"""Numbers of an action below each other; more are drawn in two columns."""
WIDTH_OF_EPISODE, WIDTH_OF_ERRORS, HEIGHT_OF_ROW = 5.0, 4.0, 1.9
TWO_COLUMNS_WIDER = 1.2
REFERENCES = {"repeat_last": ("repeat the last action", "0.45", ":"), "mean": ("mean action", "0.65", "--")}


@dataclass(frozen=True)
class Played:
    """An episode as the policy would have acted at each of its demonstrated states.

    Args:
        number: of the episode.
        actions: demonstrated, [L, A].
        steps: at which a chunk was predicted, [C].
        chunks: what would be executed of each, [C, n, A].
    """

    number: int
    actions: np.ndarray
    steps: Sequence[int]
    chunks: np.ndarray


def draw(path: Path, title: str, dimensions: Sequence[str], played: Sequence[Played], result: Mapping[str, Any]) -> int:
    """Draw, for each number of an action, some episodes over time and the error over the steps of a chunk.

    Returns:
        How many of the numbers are drawn.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    names = list(dimensions)[:SHOWN]
    blocks = 1 if len(names) <= ONE_COLUMN else 2
    rows = math.ceil(len(names) / blocks)
    widths = [WIDTH_OF_EPISODE] * len(played) + [WIDTH_OF_ERRORS]
    width = sum(widths) * (1.0 if blocks == 1 else TWO_COLUMNS_WIDER)
    figure = Figure(figsize=(width, HEIGHT_OF_ROW * rows + 1.6), layout="constrained")
    axes = figure.subplots(rows, blocks * len(widths), squeeze=False, width_ratios=blocks * widths)
    cells = [axes[number % rows, number // rows * len(widths) :][: len(widths)] for number in range(rows * blocks)]
    for number, name in enumerate(names):
        for axis, episode in zip(cells[number], played, strict=False):
            _episode(axis, episode, number)
        _by_step(cells[number][-1], number, result)
        cells[number][0].set_ylabel(name)
    for cell in cells[len(names) :]:
        for axis in cell:
            axis.set_visible(False)
    for cell in cells[::rows]:
        for axis, episode in zip(cell, played, strict=False):
            axis.set_title(f"episode {episode.number}", fontsize=10)
        cell[-1].set_title("error (RMSE)", fontsize=10)
    for last in {*range(rows - 1, len(names), rows), len(names) - 1}:
        for axis in cells[last][:-1]:
            axis.set_xlabel("step of the episode")
        cells[last][-1].set_xlabel("step of the chunk")
    _legend(figure, cells[0][0], loc="outside lower left", ncols=2)
    _legend(figure, cells[0][-1], loc="outside lower right", ncols=3)
    figure.suptitle(title, fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return len(names)


def _episode(axis: Any, episode: Played, number: int) -> None:
    axis.plot(episode.actions[:, number], color="black", linewidth=1.8, label="demonstrated")
    for count, (step, chunk) in enumerate(zip(episode.steps, episode.chunks, strict=True)):
        values = chunk[: len(episode.actions) - step, number]
        color = ("tab:red", "tab:orange")[count % 2]
        label = "predicted, a colour each chunk" if count == 0 else None
        axis.plot(range(step, step + len(values)), values, color=color, linewidth=1.2, marker=".", ms=3, label=label)
    axis.grid(alpha=0.3)


def _by_step(axis: Any, number: int, result: Mapping[str, Any]) -> None:
    for sampling in result["samplings"]:
        count = sampling["network_evaluations"]
        label = f"{count} evaluation{'s' * (count != 1)}" + (" (the run's own)" if sampling["own"] else "")
        _line(axis, sampling, number, label=label, marker=".", linewidth=2.0 if sampling["own"] else 1.0)
    for name, (label, color, style) in REFERENCES.items():
        _line(axis, result["references"][name], number, label=label, color=color, linestyle=style)
    axis.axvline(result["n_action_steps"] + 0.5, color="0.8", linewidth=1)  # behind it nothing is executed
    axis.set_ylim(bottom=0.0)
    axis.grid(alpha=0.3)


def _legend(figure: Any, axis: Any, **how: Any) -> None:
    figure.legend(*axis.get_legend_handles_labels(), fontsize=8, **how)


def _line(axis: Any, errors: Mapping[str, Any], number: int, **how: Any) -> None:
    values = [np.nan if step[number] is None else step[number] for step in errors["rmse_by_step"]]
    axis.plot(range(1, len(values) + 1), values, **how)
