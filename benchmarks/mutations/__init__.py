"""The mutations of `mutation_check.py`: one change each, and the tests that should notice it; a file for each room."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """In policy_accel/`file`, `old` (found once) becomes `new`; one of `tests` should fail."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def of(file: str, tests: str, *changes: tuple[str, str]) -> list[Mutation]:
    """Mutations of one file with the same tests, paths below tests/ with spaces between them."""
    paths = tuple(f"tests/{path}" for path in tests.split())
    return [Mutation(file, old, new, paths) for old, new in changes]


_ROOMS = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
MUTATIONS: list[Mutation] = [mutation for room in _ROOMS for mutation in room.MUTATIONS]
