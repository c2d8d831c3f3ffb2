"""Runs of one process and of two, compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.methods import MLP, ROBOT_COMMON
from support.rank_work import trained
from support.two_ranks import TwoRanks

from policy_accel.policy.config import RobotConfig
from policy_accel.policy.track import ROBOT
from policy_accel.training.ranks import ALONE

UPDATES = 4
STEPS = 12


def config_of(run_dir: Path, *overrides: str, network: Sequence[str] = MLP) -> RobotConfig:
    return ROBOT.config(
        [
            *ROBOT_COMMON,
            "method=kl",
            *network,
            f"training.steps={STEPS}",
            "training.logging.every=2",
            "training.checkpoint.every=4",
            "training.validate_every=4",
            "training.threads=1",
            "task.mask_padding=true",
            "task.val_ratio=0.1",
            f"run_dir={run_dir}",
            *overrides,
        ]
    )


def rows(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def check_equal(run_dir: Path, other: Path) -> None:
    """The same weights and averages at the end, and the same losses, up to the order of sums."""
    for name in ("model", "ema"):
        found, expected = (
            load_file(folder / "checkpoints" / f"{STEPS:08d}" / f"{name}.safetensors") for folder in (run_dir, other)
        )
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6, msg=f"{name}/{key}")
    validation_losses = [
        {row["step"]: row["validation_loss"] for row in rows(folder) if "validation_loss" in row}
        for folder in (run_dir, other)
    ]
    assert validation_losses[0] == pytest.approx(validation_losses[1], rel=1e-5)
    levels = [
        [row["noise_levels"]["loss"] for row in rows(folder) if "noise_levels" in row] for folder in (run_dir, other)
    ]
    assert levels[0][-1] == pytest.approx(levels[1][-1], rel=1e-4)
    losses = [[row["loss"] for row in rows(folder) if "loss" in row] for folder in (run_dir, other)]
    assert losses[0][-1] == pytest.approx(losses[1][-1], rel=1e-5)


def check(two: TwoRanks, track: Any, overrides: list[str], *, tolerance: float = 1e-5) -> None:
    """The first updates of two are those of one, up to the order of sums."""
    config = track.config([*overrides, "training.threads=1"])
    expected = trained(ALONE, track.name, config, UPDATES)
    for found in two(trained, track.name, config, UPDATES):
        if isinstance(found, Exception):
            raise found
        assert found["losses"] == pytest.approx(expected["losses"], rel=tolerance)
        assert [norm for norms in found["norms"] for norm in norms] == pytest.approx(
            [norm for norms in expected["norms"] for norm in norms], rel=tolerance
        )
        for name, value in expected["weights"].items():
            torch.testing.assert_close(found["weights"][name], value, rtol=1e-3, atol=1e-5, msg=name)
