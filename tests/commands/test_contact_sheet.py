"""What `data inspect` takes for observations, pictures and actions, and the sheet that it draws of them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from policy_accel.commands.contact_sheet import draw_sheet
from policy_accel.commands.ready import usual_fields
from policy_accel.data import Episodes, MemoryReader
from policy_accel.errors import UserError


def numbers(*keys, **images):
    arrays = {key: np.ones((50, 2)) for key in keys}
    arrays |= {key: np.zeros((50, 8, 8, 3), np.uint8) for key in images}
    return MemoryReader(Episodes(arrays, [20, 50]))


def test_usual_fields():
    assert usual_fields(numbers("action", "action_abs", "pos", "reward", "next_obs.pos", "frame_index")) == (
        ["pos"],
        [],
        "action",
    )
    assert usual_fields(numbers("actions", "state", "pos", cam=1)) == (["state"], ["cam"], "actions")
    beside = numbers("pos", "sim_state", "extra.x", **{"extra.cam": 1, "cam": 1})
    assert usual_fields(beside) == (["pos"], ["cam"], None)
    seen = numbers("action", "extra.x", cam=1)
    assert usual_fields(seen) == ([], ["cam"], "action"), "what it observes is enough"
    outside = numbers("action", "extra.x", "extra.done", **{"extra.cam": 1})
    assert usual_fields(outside) == (["extra.x"], ["extra.cam"], "action"), "of what is there, nothing is passed over"


def test_a_sheet_shows_paths_and_first_frames(tmp_path):
    """Pixels: the cameras' frames are one colour for each episode, of which the spread ones are drawn."""
    frames = np.repeat(np.arange(20, dtype=np.uint8)[:, None, None, None] * 12, 8 * 8 * 3, 0).reshape(20, 8, 8, 3)
    arrays = {"action": np.zeros((60, 2)), "gripper": np.arange(60.0), "cam": np.repeat(frames, 3, 0)}
    reader = MemoryReader(Episodes(arrays, np.arange(3, 61, 3)))
    reader.faults = {0: "bad."}
    draw_sheet(reader, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    greys, counts = np.unique(pixels[(pixels == pixels[:, :1]).all(1), 0], return_counts=True)
    large = set(greys[counts > 5000].tolist()) - {255}
    assert large & {12 * episode for episode in range(1, 20)} == {12 * i for i in (1, 3, 6, 8, 11, 13, 16, 19)}
    before = (tmp_path / "sheet.png").read_bytes()
    with pytest.raises(UserError, match=r"sheet\.png: exists already"):
        draw_sheet(reader, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes() == before
    with pytest.raises(UserError, match=r"ends in \.png"):
        draw_sheet(reader, tmp_path / "sheet.jpg")
