"""The statistics of every feature that LeRobot keeps for each episode and for the whole set.

After `datasets/compute_stats.py` of lerobot v0.6: numbers over all steps and axes but the last; pictures per channel,
divided by 255, over some frames of the episode, large ones thinned out.
"""

from __future__ import annotations

import numpy as np

from policy_accel.data.formats.lerobot.layout import CAMERAS, Column

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_MAX_FRAMES = 10_000
_SAMPLE_BYTES = 16_000_000  # of all features of an episode together, for their quantiles

Statistics = dict[str, dict[str, np.ndarray]]
"""Feature -> "min", "max", "mean", "std", "count" [1] and the quantiles."""


def sampled_frames(length: int) -> np.ndarray:
    """The frames of an episode of `length` steps that its picture statistics are made from: int64, ascending.

    All up to 100, then length^0.75 of them, at least 100 and at most 10,000, evenly spread.
    """
    count = max(min(100, length), min(int(length**0.75), _MAX_FRAMES))
    return np.round(np.linspace(0, length - 1, count)).astype(np.int64)


class EpisodeStatistics:
    """Statistics of one episode, gathered piece by piece.

    Args:
        columns: the features, with the videos.
        length: steps of the episode.
    """

    def __init__(self, columns: list[Column], length: int) -> None:
        # LeRobot refuses a set in which a feature named like an image has statistics of another shape.
        self._columns = [column for column in columns if column.dtype in CAMERAS or "image" not in column.name]
        self._frames, self._length = sampled_frames(length), length
        self._total: Statistics = {}
        self._samples: dict[str, list[np.ndarray]] = {column.name: [] for column in self._columns}
        self._seen = dict.fromkeys(self._samples, 0)

    def add(self, values: dict[str, np.ndarray], start: int) -> None:
        """Take in steps from `start` on: LeRobot's name -> [rows, *shape]."""
        for column in self._columns:
            part, name = values[column.name], column.name
            if column.dtype in CAMERAS:
                part = _thinned(
                    part[self._frames[(self._frames >= start) & (self._frames < start + len(part))] - start]
                )
                if not len(part):
                    continue
            flat = part.reshape(-1, part.shape[-1] if part.ndim > 1 else 1)
            steps = len(self._frames) if column.dtype in CAMERAS else self._length
            numbers = steps * (len(flat) // len(part)) * flat.shape[1]  # of the whole episode
            every = -(-numbers * 8 * len(self._columns) // _SAMPLE_BYTES)
            self._samples[name].append(flat[-self._seen[name] % every :: every])
            self._seen[name] += len(flat)
            wide = flat.astype(np.float64)
            found = {"min": wide.min(0), "max": wide.max(0), "mean": wide.mean(0), "std": wide.std(0)}
            found["count"] = np.array([len(part)])
            self._total = merge(self._total, {name: found})

    def result(self) -> Statistics:
        """The statistics, for pictures [3, 1, 1], for numbers the last axis of a step or [1]."""
        result: Statistics = {}
        for column in self._columns:
            found = self._total[column.name]
            samples = np.concatenate(self._samples[column.name])
            levels = np.quantile(samples, list(QUANTILES.values()), axis=0, method="inverted_cdf")
            found = found | dict(zip(QUANTILES, levels.astype(np.float64), strict=True))
            if column.dtype in CAMERAS:  # LeRobot's pictures have three channels
                channels = np.arange(3) % (3 if len(found["mean"]) >= 3 else 1)
                found = {name: v if name == "count" else v[channels, None, None] / 255 for name, v in found.items()}
            result[column.name] = found
        return result


def _thinned(pictures: np.ndarray) -> np.ndarray:
    side = max(pictures.shape[1:3])
    step = side // 150 if side >= 300 else 1
    return pictures[:, ::step, ::step]


def merge(total: Statistics, part: Statistics) -> Statistics:
    """The statistics of what came so far ({} at first) and of one more part together (Chan et al. 1983).

    Quantiles of the whole cannot be had from those of the parts: as LeRobot, the lowest of those up to the median and
    the highest of those above.
    """
    merged = dict(total)
    for name, new in part.items():
        if name not in total:
            merged[name] = new
            continue
        old = total[name]
        count = old["count"] + new["count"]
        mean = (old["count"] * old["mean"] + new["count"] * new["mean"]) / count
        spread = sum(one["count"] * (one["std"] ** 2 + (one["mean"] - mean) ** 2) for one in (old, new))
        merged[name] = {
            "min": np.minimum(old["min"], new["min"]),
            "max": np.maximum(old["max"], new["max"]),
            "mean": mean,
            "std": np.sqrt(spread / count),
            "count": count,
        }
        for level, share in QUANTILES.items():
            if level in new:
                merged[name][level] = (np.minimum if share <= 0.5 else np.maximum)(old[level], new[level])
    return merged
