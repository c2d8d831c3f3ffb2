"""The toy from its demonstrations to a score, through the commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from policy_accel.cli import main
from policy_accel.data import read_episodes
from policy_accel.policy.track import ROBOT

QUICK = ["model.hidden_dims=[32]", "training.device=cpu", "training.threads=1", "evaluation.videos=0"]


def test_the_toy_is_generated_trained_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "generate", "two_modes", "--episodes", "40", "--output", "toy.zarr.zip"]) == 0
    episodes = read_episodes(tmp_path / "toy.zarr.zip")
    settings = ["recipe=two_modes", "task.data=toy.zarr.zip", "task.val_ratio=0", "run_dir=run", *QUICK]
    task = ROBOT.build(ROBOT.config(settings))
    assert task.samples == 40, "a demonstration is one window"
    chunks = task.policy.action_normalizer.inverse(task.batch(task.train.indices.new_tensor(range(40))).x0)
    np.testing.assert_allclose(chunks.flatten(0, 1), episodes.arrays["action"], atol=1e-5)
    assert main(["train", *settings, "training.steps=60", "evaluation.episodes=20"]) == 0
    result = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert [row["length"] for row in result["episodes"]] == [16] * 20
    assert all(0 <= row["score"] <= 1 for row in result["episodes"])
    assert set(result["metrics"]) == {"distance", "plus", "plus_probability", "mode_probability_error"}
