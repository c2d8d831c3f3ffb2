from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator

# Before torch is loaded: for the tiny networks of the tests, threads cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

from pathlib import Path

import pytest
from support.compositions import quick_compositions
from support.curves import curves_drawn_once
from support.memory import release_much_memory

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets beside the checkout, which developers and CI have."""
    assert SHARED_DATA.is_dir(), f"{SHARED_DATA} is missing"
    return SHARED_DATA


@pytest.fixture(scope="session", autouse=True)
def compositions() -> Iterator[None]:
    with quick_compositions():
        yield


@pytest.fixture(scope="session", autouse=True)
def curves() -> Iterator[None]:
    if "torch" not in sys.modules:  # nothing trains
        yield
        return
    with curves_drawn_once():
        yield


@pytest.fixture
def treasure(tmp_path: Path) -> Path:
    """A file elsewhere that nothing may change."""
    path = tmp_path / "treasure"
    path.write_text("mine\n")
    return path


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests on real data out for a user, who does not have it; in CI its absence is a failure."""
    if SHARED_DATA.is_dir() or os.environ.get("CI"):
        return
    real = [item for item in items if "shared_data" in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=real)
    items[:] = [item for item in items if item not in real]


def pytest_collection_finish() -> None:
    """Imported modules stay; without them a collection of garbage is quick."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Libraries that count at the end what is left would count what is frozen."""
    gc.unfreeze()


def pytest_runtest_logfinish() -> None:
    """After the last of a test's phases, when nothing of it is held any more."""
    release_much_memory()
