from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


def _weights(blocks: int) -> dict[str, np.ndarray]:
    """Random weights of a net of depth 6 blocks + 2."""
    random, found = np.random.default_rng(0), {}

    def convolution(name: str, norm: str, before: int, after: int) -> None:
        found[f"{name}.weight"] = random.normal(size=(after, before, 3, 3)) / np.sqrt(9 * before)
        for part, low, high in (("weight", 0.5, 2), ("bias", -1, 1), ("running_mean", -1, 1), ("running_var", 0.2, 3)):
            found[f"{norm}.{part}"] = random.uniform(low, high, after)

    convolution("conv1", "bn1", 3, 16)
    for stage, width in enumerate((16, 32, 64), 1):
        for block in range(blocks):
            before = width // 2 if stage > 1 and block == 0 else width
            prefix = f"layer{stage}.{block}"
            convolution(f"{prefix}.conv1", f"{prefix}.bn1", before, width)
            convolution(f"{prefix}.conv2", f"{prefix}.bn2", width, width)
    return {name: array.astype(np.float32) for name, array in found.items()}


@pytest.fixture(scope="session")
def resnet_weights() -> Callable[[int], dict[str, np.ndarray]]:
    return _weights
