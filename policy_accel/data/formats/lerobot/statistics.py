"""The statistics of every feature that LeRobot keeps for each episode and for the whole set.

After `datasets/compute_stats.py` of lerobot v0.3.3 (v2.1) and v0.6 (v3.0): numbers over all steps; pictures per
channel, divided by 255, over some frames of the episode, large ones thinned out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from policy_accel.data.formats.lerobot.layout import CAMERAS, V30, Column

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_MAX_SAMPLES = 10_000
_SAMPLE_BYTES = 16_000_000  # of all features of an episode together, for their quantiles

Statistics = dict[str, dict[str, np.ndarray]]
"""Feature -> "min", "max", "mean", "std", "count" [1], and for v3.0 the quantiles."""


def sampled_frames(length: int) -> np.ndarray:
    """The frames of an episode of `length` steps that its picture statistics are made from: int64, ascending.

    All up to 100, then length^0.75 of them, at least 100 and at most 10,000, evenly spread.
    """
    count = max(min(100, length), min(int(length**0.75), _MAX_SAMPLES))
    return np.round(np.linspace(0, length - 1, count)).astype(np.int64)


class EpisodeStatistics:
    """Statistics of one episode, gathered piece by piece.

    Args:
        columns: the features, with the videos.
        length: steps of the episode.
        version: "v2.1", or "v3.0" for quantiles and for statistics over all axes but the last.
    """

    def __init__(self, columns: list[Column], length: int, version: str) -> None:
        # LeRobot refuses a set in which a feature named like an image has statistics of another shape.
        self._columns = [column for column in columns if column.dtype in CAMERAS or "image" not in column.name]
        self._frames = sampled_frames(length)
        self._rows = {column.name: self._sampled_rows(column, length) for column in self._columns}
        self._newer = version == V30
        self._parts: dict[str, Any] = {}

    def _sampled_rows(self, column: Column, length: int) -> np.ndarray:
        """The steps that the quantiles of a feature are made from: int64, ascending."""
        step = 8 * max(1, int(np.prod(column.feature.shape, dtype=np.int64)))
        fitting = max(1, _SAMPLE_BYTES // len(self._columns) // step)
        return np.unique(np.round(np.linspace(0, length - 1, min(length, _MAX_SAMPLES, fitting))).astype(np.int64))

    def add(self, values: dict[str, np.ndarray], start: int) -> None:
        """Take in steps from `start` on: LeRobot's name -> [rows, *shape]."""
        for column in self._columns:
            part = values[column.name]
            if column.dtype in CAMERAS:
                chosen = self._frames[(self._frames >= start) & (self._frames < start + len(part))] - start
                self._add_pictures(column.name, part[chosen])
            else:
                self._add_numbers(column.name, part, start)

    def _add_pictures(self, name: str, pictures: np.ndarray) -> None:
        counts, frames = self._parts.setdefault(name, (np.zeros((3, 256), np.int64), [0]))
        height, width = pictures.shape[1:3]
        if max(height, width) >= 300:
            step = max(height, width) // 150
            pictures = pictures[:, ::step, ::step]
        frames[0] += len(pictures)
        for channel in range(3):
            plane = pictures[..., channel if pictures.shape[3] >= 3 else 0]
            counts[channel] += np.bincount(plane.reshape(-1), minlength=256)

    def _add_numbers(self, name: str, part: np.ndarray, start: int) -> None:
        rows = part.shape[0]
        sampled = self._rows[name]
        chosen = sampled[(sampled >= start) & (sampled < start + rows)] - start
        if part.ndim == 1:
            part = part[:, None]
        flat = part.reshape(-1, part.shape[-1]) if self._newer else part
        wide = flat.astype(np.float64)
        new = [rows, len(flat), flat.min(0), flat.max(0), wide.mean(0), wide.var(0)]
        old = self._parts.get(name)
        samples = [] if old is None else old[6]
        if self._newer:
            samples.append(part[chosen].reshape(-1, part.shape[-1]).astype(np.float64))
        if old is not None:
            mean, variance = _pooled([(old[1], old[4], old[5]), (new[1], new[4], new[5])])
            low, high = np.minimum(old[2], new[2]), np.maximum(old[3], new[3])
            new = [old[0] + new[0], old[1] + new[1], low, high, mean, variance]
        self._parts[name] = [*new, samples]

    def result(self) -> Statistics:
        """The statistics, for pictures [3, 1, 1], for numbers [1] or the shape of a step (v3.0: its last axis)."""
        return {column.name: self._one(column) for column in self._columns}

    def _one(self, column: Column) -> dict[str, np.ndarray]:
        part = self._parts[column.name]
        if column.dtype in CAMERAS:
            return _picture_statistics(part[0], part[1][0], self._newer)
        rows, _, low, high, mean, variance, samples = part
        if self._newer:
            low, high = low.astype(np.float64), high.astype(np.float64)
        found = {"min": low, "max": high, "mean": mean, "std": np.sqrt(variance), "count": np.array([rows])}
        if self._newer:
            samples = np.concatenate(samples)
            levels = np.quantile(samples, list(QUANTILES.values()), axis=0, method="inverted_cdf")
            found |= dict(zip(QUANTILES, levels, strict=True))
        return found


def _picture_statistics(counts: np.ndarray, frames: int, newer: bool) -> dict[str, np.ndarray]:
    level, total = np.arange(256) / 255, counts.sum(1, keepdims=True)
    mean = (counts * level).sum(1, keepdims=True) / total
    std = np.sqrt((counts * (level - mean) ** 2).sum(1, keepdims=True) / total)
    below = np.cumsum(counts, 1)
    found = {
        "min": np.array([[level[np.flatnonzero(row)[0]]] for row in counts]),
        "max": np.array([[level[np.flatnonzero(row)[-1]]] for row in counts]),
        "mean": mean,
        "std": std,
    }
    if newer:
        for name, share in QUANTILES.items():
            found[name] = np.array([[level[np.searchsorted(row, share * row[-1])]] for row in below])
    order = ("min", "max", "mean", "std")
    shaped = {name: found[name][..., None] for name in order} | {"count": np.array([frames])}
    return shaped | {name: found[name][..., None] for name in QUANTILES if newer}


def _pooled(parts: list[tuple[Any, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of everything from (count, mean, variance) of its parts (Chan et al. 1983)."""
    total = sum(count for count, _, _ in parts)
    mean = sum(count * mean for count, mean, _ in parts) / total
    return mean, sum(count * (variance + (own - mean) ** 2) for count, own, variance in parts) / total


def merge(total: Statistics, episode: Statistics) -> Statistics:
    """The statistics of the set so far ({} at first) and of one more episode together.

    Quantiles of the whole cannot be had from those of the parts: as LeRobot, the lowest of those up to the median and
    the highest of those above.
    """
    if not total:
        return episode
    merged: Statistics = {}
    for name, new in episode.items():
        old = total[name]
        mean, variance = _pooled(
            [(float(part["count"][0]), part["mean"], part["std"] ** 2) for part in (old, new)],
        )
        merged[name] = {
            "min": np.minimum(old["min"], new["min"]),
            "max": np.maximum(old["max"], new["max"]),
            "mean": mean,
            "std": np.sqrt(variance),
            "count": old["count"] + new["count"],
        }
        for level, share in QUANTILES.items():
            if level in new:
                merged[name][level] = (np.minimum if share <= 0.5 else np.maximum)(old[level], new[level])
    return merged
