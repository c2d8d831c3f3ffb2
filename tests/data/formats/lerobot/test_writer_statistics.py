"""Statistics that are written with a set: of all numbers and of some frames."""

from __future__ import annotations

import json

import numpy as np
import pytest

from policy_accel.data.episodes import Episodes
from policy_accel.data.formats.base import Feature, MemoryReader
from policy_accel.data.formats.lerobot.layout import Column
from policy_accel.data.formats.lerobot.writer import EpisodeStatistics, sampled_frames, write_lerobot


def test_statistics_of_numbers_and_pictures(tmp_path):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (700, 4, 6, 3)).astype(np.uint8)
    action = rng.normal(3, 2, (700, 2)).astype(np.float32)
    wanted = Episodes({"action": action, "top_image": pictures, "image_id": action}, np.array([300, 700]), "memory")
    write_lerobot(tmp_path / "set", MemoryReader(wanted), images="png")
    stats = json.loads((tmp_path / "set/meta/stats.json").read_text())
    assert "observation.image_id" not in stats  # LeRobot would refuse the set over its shape
    found = stats["action"]
    assert found["count"] == [700]
    np.testing.assert_allclose(found["min"], action.min(0))
    np.testing.assert_allclose(found["max"], action.max(0))
    np.testing.assert_allclose(found["mean"], action.mean(0, dtype=np.float64), rtol=1e-9)
    np.testing.assert_allclose(found["std"], action.std(0, dtype=np.float64), rtol=1e-9)
    parts = [np.quantile(part, 0.9, axis=0, method="inverted_cdf") for part in (action[:300], action[300:])]
    np.testing.assert_allclose(found["q90"], np.max(parts, 0))
    parts = [np.quantile(part, 0.5, axis=0, method="inverted_cdf") for part in (action[:300], action[300:])]
    np.testing.assert_allclose(found["q50"], np.min(parts, 0))
    chosen = np.concatenate([sampled_frames(300), 300 + sampled_frames(400)])
    found = stats["observation.top_image"]
    assert found["count"] == [len(chosen)] == [200]
    np.testing.assert_allclose(np.ravel(found["mean"]), pictures[chosen].mean((0, 1, 2)) / 255, rtol=1e-9)
    np.testing.assert_allclose(np.ravel(found["std"]), pictures[chosen].std((0, 1, 2)) / 255, rtol=1e-9)
    assert np.shape(found["q99"]) == (3, 1, 1)


@pytest.mark.parametrize(("length", "count"), [(1, 1), (99, 99), (100, 100), (400, 100), (1000, 177), (20_000, 1681)])
def test_frames_of_picture_statistics(length, count):
    frames = sampled_frames(length)
    assert len(frames) == count
    assert (frames[0], frames[-1]) == (0, length - 1)


def test_large_pictures_are_thinned_out():
    frames = np.random.default_rng(0).integers(0, 256, (2, 480, 640, 3)).astype(np.uint8)
    statistics = EpisodeStatistics([Column("top", "video", Feature((480, 640, 3), frames.dtype), None)], 2)
    statistics.add({"top": frames}, 0)
    mean = statistics.result()["top"]["mean"].ravel()
    np.testing.assert_allclose(mean, frames[:, ::4, ::4].mean((0, 1, 2)) / 255, rtol=1e-9)
