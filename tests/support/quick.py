"""What makes many short runs in one process cheap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from policy_accel.images import track as images
from policy_accel.policy import track as robot


def once(load: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[str, Any] = {}

    def loaded(*settings: Any) -> Any:
        key = repr(settings)
        if key not in known:
            known[key] = load(*settings)
        # Pictures of demonstrations move to the device where they are.
        return known[key] if getattr(known[key], "images", None) is None else known.pop(key)

    return loaded


@contextmanager
def quick_runs() -> Iterator[None]:
    """Demonstrations and images are read once, two updates warm up, and nobody counts operations."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((robot, "load_demonstrations"), (images, "load_split")):
            patch.setattr(module, name, once(getattr(module, name)))
        patch.setattr("policy_accel.images.task.training_flops", lambda *_: 0.0)
        patch.setattr("policy_accel.training.graphs.WARM_UP", 2)
        yield
