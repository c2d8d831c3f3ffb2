"""Standard normal numbers by a counter: each follows from a key and its place, whatever is drawn with it, in what order
and on what device.

Philox 4x32-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3") and the transform of Box and Muller
(1958). torch has no integers of 32 bits without a sign that multiply, so words are int64 in [0, 2^32).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Four random words for each counter.

    Args:
        counter: four words, int64 in [0, 2^32), of shapes that broadcast.
        key: two words.
    """
    a, b, c, d = counter
    for turn in range(ROUNDS):
        # Products wrap at 2^64, which leaves their bits as they are; the mask takes the sign off the upper half.
        first, second = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        low, high = ((word + turn * step) & WORD for word, step in zip(key, WEYL, strict=True))
        a, b = (second >> 32 & WORD) ^ b ^ low, second & WORD
        c, d = (first >> 32 & WORD) ^ d ^ high, first & WORD
    return a, b, c, d


def normal_by_counter(seed: int, rows: Tensor, draw: int, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers [n, *shape], float32 on the device of `rows`.

    They reach to 6.7 deviations: those beyond have a probability of 2^-32.

    Args:
        seed: 0 to 2^64 - 1.
        rows: [n] int64, at least 0: row i of the result follows from (seed, rows[i], draw) alone.
        draw: 0 to 2^32 - 1; other draws are independent.
        shape: of a row, up to 2^34 numbers.
    """
    numbers = math.prod(shape)
    place = torch.arange((numbers + 3) // 4, device=rows.device)
    row = rows[:, None]
    words = philox((place, torch.full_like(place, draw), row & WORD, row >> 32), (seed & WORD, seed >> 32))
    first, second, third, fourth = ((word.float() + 0.5) * 2.0**-32 for word in words)
    normal = torch.stack([*_box_muller(first, second), *_box_muller(third, fourth)], dim=-1)
    return normal.flatten(1)[:, :numbers].reshape(len(rows), *shape)


def _box_muller(radius: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normal numbers from two that are uniform in (0, 1]."""
    length, turn = (-2.0 * radius.log()).sqrt(), 2.0 * math.pi * angle
    return length * turn.cos(), length * turn.sin()
