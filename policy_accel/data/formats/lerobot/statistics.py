"""The statistics of every feature that LeRobot keeps for each episode and for the whole set.

After `datasets/compute_stats.py` of lerobot v0.6: numbers over all steps and axes but the last; pictures per channel,
divided by 255, over some frames of the episode, large ones thinned out.
"""

from __future__ import annotations

import numpy as np

from policy_accel.data.formats.lerobot.layout import CAMERAS, Column

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_SAMPLE_BYTES = 16_000_000  # of all features of an episode together, for their quantiles

Statistics = dict[str, dict[str, np.ndarray]]
"""Feature -> "min", "max", "mean", "std", "count" [1] and the quantiles."""


def sampled_frames(length: int) -> np.ndarray:
    """The frames of an episode for the statistics of pictures: length^0.75 of them, from all up to 100 to 10,000."""
    count = max(min(100, length), min(int(length**0.75), 10_000))
    return np.round(np.linspace(0, length - 1, count)).astype(np.int64)


class EpisodeStatistics:
    """Statistics of the columns, with the videos, of an episode of `length` steps, gathered piece by piece."""

    def __init__(self, columns: list[Column], length: int) -> None:
        # LeRobot refuses a set in which a feature named like an image has statistics of another shape.
        self._columns = [column for column in columns if column.dtype in CAMERAS or "image" not in column.name]
        self._frames, self._length = sampled_frames(length), length
        self._total: Statistics = {}
        self._samples: dict[str, list[np.ndarray]] = {column.name: [] for column in self._columns}

    def add(self, values: dict[str, np.ndarray], start: int) -> None:
        """Take in steps from `start` on: LeRobot's name -> [rows, *shape]."""
        for column in self._columns:
            part, steps = values[column.name], self._length
            if column.dtype in CAMERAS:
                side, steps = max(part.shape[1:3]), len(self._frames)
                chosen = self._frames[(self._frames >= start) & (self._frames < start + len(part))] - start
                part = part[chosen, :: side // 150, :: side // 150] if side >= 300 else part[chosen]
            if len(part):
                flat = part.reshape(-1, part.shape[-1] if part.ndim > 1 else 1)
                size = steps * (flat.size // len(part)) * 8 * len(self._columns)  # of the whole episode
                self._samples[column.name].append(flat[:: 1 + size // _SAMPLE_BYTES])
                wide = flat.astype(np.float64)
                found = {"min": wide.min(0), "max": wide.max(0), "mean": wide.mean(0), "std": wide.std(0)}
                merge(self._total, {column.name: found | {"count": np.array([len(part)])}})

    def result(self) -> Statistics:
        """The statistics, for pictures [3, 1, 1], for numbers the last axis of a step or [1]."""
        for column in self._columns:
            samples, found = np.concatenate(self._samples[column.name]), self._total[column.name]
            levels = np.quantile(samples, list(QUANTILES.values()), axis=0, method="inverted_cdf").astype(np.float64)
            found |= dict(zip(QUANTILES, levels, strict=True))
            if column.dtype in CAMERAS:  # LeRobot's pictures have three channels
                channels = np.arange(3) % (3 if len(found["mean"]) >= 3 else 1)
                found |= {level: v[channels, None, None] / 255 for level, v in found.items() if level != "count"}
        return self._total


def merge(total: Statistics, part: Statistics) -> None:
    """Take the statistics of one more part into those of what came so far (Chan et al. 1983).

    Quantiles of the whole cannot be had from those of the parts: as LeRobot, the lowest of those up to the median and
    the highest of those above.
    """
    for name, new in part.items():
        old = total.get(name)
        if old is None:
            total[name] = dict(new)
            continue
        count = old["count"] + new["count"]
        mean = (old["count"] * old["mean"] + new["count"] * new["mean"]) / count
        spread = sum(one["count"] * (one["std"] ** 2 + (one["mean"] - mean) ** 2) for one in (old, new))
        for level in new:
            lowest = level == "min" or QUANTILES.get(level, 1) <= 0.5
            old[level] = (np.minimum if lowest else np.maximum)(old[level], new[level])
        old |= {"mean": mean, "std": np.sqrt(spread / count), "count": count}
