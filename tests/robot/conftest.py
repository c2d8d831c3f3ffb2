from __future__ import annotations

from pathlib import Path

import pytest
from support.serving import tiny_run

from policy_accel.policy.controller import Policy


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny U-Net on made-up demonstrations with the keys of Push-T."""
    return tiny_run(tmp_path_factory.mktemp("robot"))


@pytest.fixture(scope="session")
def policy(run_dir: Path) -> Policy:
    """The policy of the run; a test that drives it resets it first."""
    return Policy.load(run_dir, device="cpu")
