"""Files of other libraries, opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policy_accel.policy.foreign.diffusion_policy import read_checkpoint
from policy_accel.policy.foreign.kinds import CHECKPOINT
from policy_accel.policy.foreign.lerobot import read_lerobot
from policy_accel.policy.foreign.stored import Foreign, understood
from policy_accel.policy.run import LoadedRun
from policy_accel.policy.track import ROBOT
from policy_accel.run_sampling import AS_CHOSEN, AskedSampling


def read_foreign(path: Path) -> Foreign:
    """What a file for which `is_foreign` holds says of its policy.

    Raises:
        UserError: it cannot be read, or is of another kind than ours.
    """
    with understood(path):
        return read_checkpoint(path) if path.suffix == CHECKPOINT else read_lerobot(path)


def foreign_config(path: Path) -> dict[str, Any]:
    """Our configuration of such a file, as plain values."""
    return ROBOT.record(read_foreign(path).config())


def load_foreign(
    path: Path,
    settings: Mapping[str, Any] | None = None,
    device: Any = "cpu",
    asked: AskedSampling = AS_CHOSEN,
) -> LoadedRun:
    """The policy of such a file, see `Foreign.config` and `Foreign.load`."""
    foreign = read_foreign(path)
    return foreign.load(foreign.config(settings), device, asked)
