"""Videos that are written: every frame as it was, or small and close."""

from __future__ import annotations

import json

import av
import numpy as np

from policy_accel.data.episodes import Episodes
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.formats.lerobot.reader import LeRobotReader
from policy_accel.data.formats.lerobot.writer import write_lerobot


def test_videos_have_a_key_frame_every_second_frame_and_where_an_episode_starts(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3)).astype(np.uint8)
    wanted = Episodes({"action": np.zeros((12, 1)), "top": frames}, np.array([5, 12]), "memory")
    write_lerobot(tmp_path / "set", MemoryReader(wanted), fps=30)
    with av.open(str(next(tmp_path.rglob("*.mp4")))) as container:
        stream = container.streams.video[0]
        decoded = list(container.decode(stream))
        assert stream.average_rate == 30
        np.testing.assert_allclose([frame.time for frame in decoded], np.arange(12) / 30, atol=1e-6)
        keys = [number for number, frame in enumerate(decoded) if frame.key_frame]
        assert 5 in keys
        assert max(np.diff(keys)) <= 2
        np.testing.assert_array_equal([frame.to_ndarray(format="rgb24") for frame in decoded], frames)


def test_h264_is_small_and_close(tmp_path):
    rows, columns = np.mgrid[:64, :64]
    frames = np.stack([np.stack([rows + t, columns * 2, rows + columns], -1) for t in range(40)]).astype(np.uint8)
    wanted = Episodes({"action": np.zeros((40, 1)), "top": frames}, np.array([40]), "memory")
    for images in ("h264", "lossless"):
        write_lerobot(tmp_path / images, MemoryReader(wanted), images=images)
    with LeRobotReader(tmp_path / "h264") as reader:
        error = np.abs(reader.read(0)["top"].astype(int) - frames).mean()
    assert 0 < error < 4
    small, large = (next((tmp_path / name).rglob("*.mp4")).stat().st_size for name in ("h264", "lossless"))
    assert small < large / 3
    info = json.loads((tmp_path / "h264/meta/info.json").read_text())
    assert info["features"]["observation.top"]["info"]["video.pix_fmt"] == "yuv420p"
