from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sweeps import furnish
from support.user_modules import forgotten_afterwards


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with what the sweeps of the tests need."""
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    with forgotten_afterwards():
        yield tmp_path
