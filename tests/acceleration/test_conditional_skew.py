"""What each coupling does to a one-dimensional policy with two modes, with a perfect velocity field.

c is 0 or 1, the action is near +1 or -1 (deviation 0.1), and P(+ | c = 0) = 0.1, P(+ | c = 1) = 0.9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from policy_accel.acceleration.diagnostics import condition_leak
from policy_accel.acceleration.nearest_noise import nearest_noise
from policy_accel.acceleration.noise_assignment import assign_noise

SAMPLES = 51_200


@dataclass(frozen=True)
class World:
    condition: Tensor
    action: Tensor
    pool: Tensor


@pytest.fixture(scope="module")
def world() -> World:
    draws = torch.Generator().manual_seed(0)
    condition = torch.randint(2, (SAMPLES,), generator=draws)
    plus = torch.rand(SAMPLES, generator=draws) < torch.where(condition == 1, 0.9, 0.1)
    action = torch.where(plus, 1.0, -1.0) + 0.1 * torch.randn(SAMPLES, generator=draws)
    return World(condition, action.unsqueeze(1), torch.randn(SAMPLES, 1, generator=draws))


def sampled_share_of_plus(noise: np.ndarray, action: np.ndarray, steps: int = 100, bin_width: float = 0.02) -> float:
    """Integrate dx/du = E[action - noise | x_u] from N(0, 1), the mean taken over bins of x_u = (1 - u) n + u x."""
    velocity = action - noise
    x = torch.special.ndtri((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000).numpy()
    for step in range(steps):
        u = step / steps
        between = (1 - u) * noise + u * action
        bins = np.floor((between + 7) / bin_width).astype(int)
        count = np.bincount(bins)
        seen = count > 0
        centre = np.bincount(bins, weights=between)[seen] / count[seen]
        x = x + np.interp(x, centre, np.bincount(bins, weights=velocity)[seen] / count[seen]) / steps
    return float((x > 0).mean())


Couple = Callable[[World], Tensor]


def assigned(block_size: int, *, inside: bool = False) -> Couple:
    return lambda world: (
        assign_noise(world.action, world.pool, block_size=block_size, groups=world.condition if inside else None).noise
    )


def nearest(candidates: int, metric: str) -> Couple:
    draws = torch.Generator().manual_seed(1)
    return lambda world: nearest_noise(world.action, candidates=candidates, metric=metric, generator=draws).noise


@pytest.mark.parametrize(
    ("couple", "plus", "mean_noise", "from_sign"),
    [
        pytest.param(lambda world: world.pool, 0.098, 0.00, 0.50, id="independent"),
        pytest.param(assigned(64), 0.425, -0.62, 0.84, id="assignment-64"),
        pytest.param(assigned(256), 0.464, -0.64, 0.87, id="assignment-256"),
        pytest.param(nearest(2, "l2"), 0.251, -0.38, 0.69, id="nearest-2"),
        pytest.param(nearest(4, "l2"), 0.369, -0.61, 0.84, id="nearest-4"),
        pytest.param(nearest(8, "l2"), 0.435, -0.73, 0.90, id="nearest-8"),
        pytest.param(nearest(2, "dot"), 0.254, -0.45, 0.70, id="aligned-2"),
        pytest.param(nearest(4, "dot"), 0.362, -0.82, 0.85, id="aligned-4"),
        pytest.param(assigned(128, inside=True), 0.100, 0.00, 0.50, id="assignment-inside"),
    ],
)
def test_skew_of_each_coupling(couple: Couple, plus: float, mean_noise: float, from_sign: float, world: World) -> None:
    noise, zero = couple(world), world.condition == 0
    n, x = noise[zero, 0].double().numpy(), world.action[zero, 0].double().numpy()
    sampled = sampled_share_of_plus(n, x)
    assert sampled == pytest.approx(plus, abs=0.03)
    # In one dimension the field carries quantiles to quantiles, so the share also follows from p(n | c) alone.
    threshold = np.quantile(n, 1 - (x > 0).mean())
    assert sampled == pytest.approx(float(torch.special.ndtr(torch.tensor(-threshold))), abs=0.01)
    assert n.mean() == pytest.approx(mean_noise, abs=0.03)
    told = ((noise[:, 0] > 0) == (world.condition == 1)).double().mean()
    assert float(told) == pytest.approx(from_sign, abs=0.03)

    leak = condition_leak(torch.nn.functional.one_hot(world.condition), noise, seed=0, rows=2048)
    # What a linear predictor can know: the squared correlation of the noise with the condition.
    predicted = float(torch.corrcoef(torch.stack([noise[:, 0], world.condition.float()]))[0, 1] ** 2)
    if from_sign == 0.5:
        assert leak.p_value > 1e-3
        assert predicted < 1e-3
    else:
        assert leak.p_value < 1e-20
    assert leak.score == pytest.approx(predicted, abs=0.08)


@pytest.mark.parametrize("candidates", [2, 4])
def test_aligned_noise_flattens_the_odds_to_the_kth_root(candidates: int, world: World) -> None:
    noise, zero = nearest(candidates, "dot")(world), world.condition == 0
    sampled = sampled_share_of_plus(noise[zero, 0].double().numpy(), world.action[zero, 0].double().numpy())
    odds = 9 ** (1 / candidates)
    assert sampled == pytest.approx(1 / (1 + odds), abs=0.015)
