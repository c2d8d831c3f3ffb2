from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

FIGURES = Path(__file__).parents[2] / "docs" / "figures"


@pytest.fixture(scope="session")
def script() -> Iterator[Callable[[str], ModuleType]]:
    """The scripts of docs/figures by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FIGURES)
        yield importlib.import_module


@pytest.fixture(scope="session")
def folder() -> Path:
    """Where scripts and pictures lie."""
    return FIGURES
