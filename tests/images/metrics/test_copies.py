from __future__ import annotations

import numpy as np
import pytest

from policy_accel.images.metrics import copies
from policy_accel.images.metrics.copies import nearest_distances


def _images(count: int, seed: int, size: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


def _brute_force(samples: np.ndarray, training: np.ndarray) -> np.ndarray:
    """[n, N] distance of each sample, mirrored or not."""
    a, b = samples.astype(np.float64), training.astype(np.float64)
    both = [np.sqrt(((x[:, None] - b[None]) ** 2).mean((2, 3, 4))) for x in (a, a[..., ::-1])]
    return np.minimum(*both)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "ROWS", 5)
    monkeypatch.setattr(copies, "COLUMNS", 7)


def test_distances_agree_with_brute_force_over_several_blocks() -> None:
    samples, training = _images(9, 1), _images(23, 2)
    found = nearest_distances(samples, training, device="cpu")
    np.testing.assert_allclose(found, _brute_force(samples, training).min(1), rtol=1e-12)


def test_a_copy_and_a_mirrored_copy_are_at_distance_exactly_zero() -> None:
    training = _images(23, 2)
    samples = np.stack([training[20], training[3][..., ::-1]])
    assert nearest_distances(samples, training, device="cpu").tolist() == [0, 0]


def test_training_images_are_not_their_own_neighbours_even_mirrored() -> None:
    training = _images(23, 2)
    training[4] = training[4][..., ::-1]  # nothing special: just another image
    chosen = np.array([0, 4, 9, 22])
    distances = _brute_force(training[chosen], training)
    distances[np.arange(4), chosen] = np.inf
    found = nearest_distances(training[chosen], training, device="cpu", own_indices=chosen)
    np.testing.assert_allclose(found, distances.min(1), rtol=1e-12)
    assert (found > 0).all()


def test_large_images_are_compared_after_averaging_and_latents_in_their_units() -> None:
    small = _images(11, 3, size=32)
    large = small.repeat(2, axis=2).repeat(2, axis=3)
    found = nearest_distances(large[:4], large[4:], device="cpu")
    np.testing.assert_allclose(found, _brute_force(small[:4], small[4:]).min(1), rtol=1e-5)
    latents = (small / 50).astype(np.float16)
    found = nearest_distances(latents[:4], latents[4:], device="cpu")
    np.testing.assert_allclose(found, _brute_force(latents[:4], latents[4:]).min(1), rtol=1e-5)
