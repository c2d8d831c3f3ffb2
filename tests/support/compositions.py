"""Configurations that are composed once for all tests that ask for the same."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any


def composed_once(compose: Callable[[list[str]], Any]) -> Callable[[list[str]], Any]:
    """`compose` whose results are kept, since Hydra takes 0.2 s for each; a call gets a copy for its own run_dir."""
    kept: dict[tuple[str, ...], Any] = {}

    def composed(overrides: list[str]) -> Any:
        *_, place = ["", *(override for override in overrides if override.startswith("run_dir="))]
        others = [override for override in overrides if not override.startswith("run_dir=")]
        if "$" in place:  # made of other settings
            return compose([*others, place])
        key = tuple(others)
        if key not in kept:
            kept[key] = compose(others)
        config = deepcopy(kept[key])
        config.run_dir = place.removeprefix("run_dir=") or config.run_dir
        return config

    return composed
