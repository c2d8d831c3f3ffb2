from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from policy_accel.diffusion.counter_noise import normal_by_counter, philox


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_words_are_those_that_the_authors_publish(counter: str, key: str, expected: str) -> None:
    """The known answers of their library Random123 for philox4x32 with 10 rounds."""
    first, second, third, fourth = (torch.tensor([int(word, 16)]) for word in counter.split())
    low, high = (int(word, 16) for word in key.split())
    words = philox((first, second, third, fourth), (low, high))
    assert [int(word) for word in words] == [int(word, 16) for word in expected.split()]


def test_normal_numbers_are_made_of_the_words() -> None:
    """Box and Muller of two words each, in numpy; the counter is (place, draw, low word and high word of the row)."""
    row, seed = 5 + (3 << 32), 7 + (9 << 32)
    found = normal_by_counter(seed, torch.tensor([row]), 11, (6,))
    for place in (0, 1):
        words = philox((*(torch.tensor(word) for word in (place, 11, 5, 3)),), (7, 9))  # type: ignore[arg-type]
        uniform = [(int(word) + 0.5) / 2**32 for word in words]
        expected = []
        for radius, angle in (uniform[:2], uniform[2:]):
            length = np.sqrt(-2 * np.log(radius))
            expected += [length * np.cos(2 * np.pi * angle), length * np.sin(2 * np.pi * angle)]
        numbers = found[0, 4 * place : 4 * place + 4]
        np.testing.assert_allclose(numbers, expected[: len(numbers)], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 8, 8), (5,), (1, 3, 3)])
def test_a_row_follows_from_seed_row_and_draw_alone(shape: tuple[int, ...]) -> None:
    everything = normal_by_counter(3, torch.arange(40), 2, shape)
    assert everything.shape == (40, *shape)
    assert everything.dtype == torch.float32
    for rows in ([7], [39, 0, 12], list(range(5, 36))):
        assert torch.equal(normal_by_counter(3, torch.tensor(rows), 2, shape), everything[rows])
    for other in ((4, 2), (3, 1), (3 + (1 << 32), 2)):
        assert not torch.isclose(normal_by_counter(other[0], torch.arange(40), other[1], shape), everything).any()


def test_rows_and_draws_are_independent_standard_normal() -> None:
    """Kolmogorov and Smirnov's test of 600,000 numbers; correlations of neighbours in every direction."""
    draws = torch.stack([normal_by_counter(0, torch.arange(50), draw, (4, 25, 30)) for draw in range(4)])
    assert scipy.stats.kstest(draws.flatten().numpy(), "norm").pvalue > 0.01
    flat = draws.flatten()
    for lag in (1, 2, 3, 4, 3000, 150_000):
        assert abs(float((flat * flat.roll(lag)).mean())) < 4 / len(flat) ** 0.5
        assert float((flat**2 * flat.roll(lag) ** 2).mean()) == pytest.approx(1.0, abs=0.02)
