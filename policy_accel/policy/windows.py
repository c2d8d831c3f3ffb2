"""Training windows over episodes as index tensors, to be gathered on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Windows:
    """Rows of the replay buffer that make up every training window: `array[windows.indices[batch]]` gathers them.

    Attributes:
        indices: [W, horizon] int64, rows of the buffer; beyond its episode a window repeats the edge step.
        valid: [W, horizon] bool, False at the repeated steps.
    """

    indices: torch.Tensor
    valid: torch.Tensor

    def to(self, device: torch.device | str) -> Windows:
        """The same windows on another device."""
        return Windows(self.indices.to(device), self.valid.to(device))


def make_windows(
    episode_ends: np.ndarray, horizon: int, *, pad_before: int, pad_after: int, episodes: np.ndarray | None = None
) -> Windows:
    """All windows of `horizon` steps that begin at most `pad_before` steps before an episode or end `pad_after` after.

    An episode of L steps gives L - horizon + 1 + pad_before + pad_after windows, in order of time, and none where
    that is not positive (with 16/1/7: L - 7, so an episode of 7 steps or fewer is left out, while one of 8 to 15
    steps gives windows that repeat an edge at one or both sides). No window crosses the border of an episode.
    Same rule and order as `create_indices` of Diffusion Policy.

    Args:
        episode_ends: [E] cumulative exclusive ends.
        horizon: steps per window, at least 1.
        pad_before: steps repeated before the first step, 0 .. horizon - 1.
        pad_after: steps repeated after the last step, 0 .. horizon - 1.
        episodes: [E] bool, the episodes to use; None for all.
    """
    ends = torch.as_tensor(episode_ends, dtype=torch.int64)
    lengths = ends.diff(prepend=ends.new_zeros(1))
    counts = (lengths - horizon + 1 + pad_before + pad_after).clamp(min=0)
    if episodes is not None:
        counts *= torch.from_numpy(episodes)
    episode = torch.repeat_interleave(counts)
    begin = torch.arange(len(episode)) - (counts.cumsum(0) - counts)[episode] - pad_before
    step, last = begin[:, None] + torch.arange(horizon), lengths[episode, None] - 1
    return Windows((ends - lengths)[episode, None] + step.clamp(min=0).minimum(last), (step >= 0) & (step <= last))
