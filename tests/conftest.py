from __future__ import annotations

import os

# Before torch is loaded: for the tiny networks of the tests, threads cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets that stand beside the checkout of a developer and of CI; a user does not need them."""
    folder = REPOSITORY.parent / "shared" / "data"
    assert folder.is_dir(), f"{folder} is missing: the tests on real data need it"
    return folder
