"""Modules of a user's own, and what they register, for the time of a test."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import gymnasium

from policy_accel import groups, plugins
from policy_accel.diffusion import samplers
from policy_accel.evaluation import statistics
from policy_accel.images.metrics import measure
from policy_accel.models import registry


@contextmanager
def forgotten_afterwards() -> Iterator[None]:
    """Modules of the current folder that are imported in the block, and what they register, are forgotten at its end,
    as if it had been a process of its own."""
    tables = (
        registry._REGISTRY,
        statistics.METRICS,
        measure.METRICS,
        samplers.DETERMINISTIC_SAMPLERS,
        gymnasium.registry,
        *(group.choices for group in groups._GROUPS.values()),
    )
    tables_before = [dict(table) for table in tables]
    lists = (samplers.SAMPLERS, plugins._imported, sys.path)
    lists_before = [list(values) for values in lists]
    plugins._imported.clear()
    try:
        yield
    finally:
        for table, before in zip(tables, tables_before, strict=True):
            table.clear()
            table.update(before)
        for values, before in zip(lists, lists_before, strict=True):
            values[:] = before
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(os.getcwd() + os.sep):
                sys.modules.pop(name)
