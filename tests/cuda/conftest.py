from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.quick import quick_runs


@pytest.fixture(scope="package", autouse=True)
def quick() -> Iterator[None]:
    with quick_runs():
        yield
