from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.quick import quick_runs
from support.two_ranks import TwoRanks, two_ranks


@pytest.fixture(scope="package", autouse=True)
def quick() -> Iterator[None]:
    with quick_runs():
        yield


@pytest.fixture(scope="package")
def two() -> Iterator[TwoRanks]:
    with two_ranks() as ranks:
        yield ranks
