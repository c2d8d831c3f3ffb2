"""Predicted beside demonstrated actions, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.files import replacing

SHOWN = 8
"""Numbers of an action that are drawn: the first ones."""
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
    columns = len(played) + 1
    figure = Figure(figsize=(5.0 * len(played) + 4.0, 2.1 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots(len(names), columns, squeeze=False, width_ratios=[5.0] * len(played) + [4.0])
    for row, name in enumerate(names):
        for axis, episode in zip(axes[row], played, strict=False):
            _episode(axis, episode, row)
        _by_step(axes[row][-1], row, result)
        axes[row][0].set_ylabel(name)
    for axis, episode in zip(axes[0], played, strict=False):
        axis.set_title(f"episode {episode.number}", fontsize=10)
    axes[0][-1].set_title("error (RMSE) by step of the chunk", fontsize=10)
    for axis in axes[-1][:-1]:
        axis.set_xlabel("step of the episode")
    axes[-1][-1].set_xlabel("step of the chunk")
    axes[0][0].legend(fontsize=8)
    axes[0][-1].legend(fontsize=7)
    figure.suptitle(title, fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return len(names)


def _episode(axis: Any, episode: Played, number: int) -> None:
    axis.plot(episode.actions[:, number], color="black", linewidth=1.8, label="demonstrated")
    for count, (step, chunk) in enumerate(zip(episode.steps, episode.chunks, strict=True)):
        values = chunk[: len(episode.actions) - step, number]
        color = ("tab:red", "tab:orange")[count % 2]
        label = "predicted, a color each chunk" if count == 0 else None
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


def _line(axis: Any, errors: Mapping[str, Any], number: int, **how: Any) -> None:
    values = [np.nan if step[number] is None else step[number] for step in errors["rmse_by_step"]]
    axis.plot(range(1, len(values) + 1), values, **how)
