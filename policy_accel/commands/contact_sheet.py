"""Some episodes at a glance: where their actions and observations go, and what the cameras saw first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.commands.ready import usual_fields
from policy_accel.data.formats.base import EpisodeReader
from policy_accel.errors import UserError
from policy_accel.files import replacing

_EPISODES = 8
_CAMERAS = 6


def draw_sheet(reader: EpisodeReader, path: Path) -> None:
    """Draw up to 8 episodes, spread over the set, to a new PNG file.

    Above, a line for each: the first two numbers of its actions and of its observations (of one number: over time);
    below, the first frame of each camera.

    Raises:
        UserError: `path` exists, is no .png or cannot be written; what the reader raises.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"--sheet {path}: is drawn as a PNG; give it a name that ends in .png.")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    observation, images, action = usual_fields(reader)
    plotted = [key for key in (action, *observation[:1]) if key is not None]
    cameras = images[:_CAMERAS]
    sound = [episode for episode in range(len(reader.episode_ends)) if episode not in reader.faults]
    episodes = [sound[i] for i in np.unique(np.linspace(0, len(sound) - 1, min(_EPISODES, len(sound))).astype(int))]
    if not episodes or not (plotted or cameras):
        raise UserError(f"--sheet {path}: {reader.source} has no episode with numbers or pictures to draw.")
    columns = max(len(episodes), 4)
    heights = [3.0] * bool(plotted) + [1.6] * len(cameras)
    figure = Figure(figsize=(1.7 * columns, sum(heights) + 0.5), layout="constrained")
    figure.suptitle(f"{Path(reader.source).name}: episodes {', '.join(map(str, episodes))}", fontsize=10)
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    for place, key in enumerate(plotted):
        half = columns // len(plotted)
        axes = figure.add_subplot(grid[0, place * half : (place + 1) * half])
        for episode in episodes:
            _draw_line(axes, reader.read(episode, [key])[key], str(episode))
        axes.set_title(key, fontsize=9)
        axes.tick_params(labelsize=7)
        if place == 0:
            axes.legend(fontsize=6, title="episode", title_fontsize=6)
    for row, key in enumerate(cameras, start=bool(plotted)):
        for column, episode in enumerate(episodes):
            axes = figure.add_subplot(grid[row, column])
            frame = reader.read(episode, [key], 0, 1)[key][0]
            axes.imshow(frame[..., 0] if frame.shape[2] == 1 else frame, cmap="gray")
            axes.set_xticks([]), axes.set_yticks([])
            axes.set_title(f"{key}, {episode}" if column == 0 else str(episode), fontsize=7)
    with replacing(path, new=True) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _draw_line(axes: Any, values: np.ndarray, label: str) -> None:
    """One episode [T, ...]: the path of its first two numbers, which begins with a dot, or of one over time."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    x, y = (flat[:, 0], flat[:, 1]) if flat.shape[1] > 1 else (np.arange(len(flat)), flat[:, 0])
    (line,) = axes.plot(x, y, linewidth=0.8, label=label)
    axes.plot(x[:1], y[:1], marker="o", markersize=3, color=line.get_color())
