from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from policy_accel.policy.recurrence import EPISODES, Recurrence, recurrence

PLACES, EACH = 16, 256


def windows(told: float, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Observations that name one of 16 places, and an offset N(0, 1); chunks that are +-3 by the place, +-1 by chance,
    and `told` times the offset."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.arange(PLACES * EACH) % PLACES
    offset = torch.randn(len(place), generator=generator)
    conditions = torch.cat([torch.eye(PLACES)[place], offset.unsqueeze(1)], dim=1)
    side = 2.0 * torch.randint(2, (len(place),), generator=generator) - 1.0
    chunks = torch.where(place % 2 == 0, 3.0, -3.0) + side + told * offset
    return conditions, chunks[:, None, None].expand(-1, 4, 2), torch.arange(len(place)) // 8


def test_what_the_place_leaves_is_chance() -> None:
    """Of a variance of 9 + 1 the groups take the 9, and of the 1 a share of 128 / 4096 as means of few windows."""
    found = recurrence(*windows(told=0.0), seed=0)
    assert found.inside == pytest.approx((1.0 - 128 / (PLACES * EACH)) / 10.0, rel=0.03)
    assert found.told == pytest.approx(0.0, abs=0.01)
    assert found.recurs


def test_what_it_tells_in_full() -> None:
    found = recurrence(*windows(told=50.0), seed=0)
    assert found.told is not None
    assert found.told > 0.95
    assert not found.recurs


def test_a_group_reaches_over_the_episodes_of_its_windows() -> None:
    """Two groups: one window of each of 20 episodes in the first place, all of one episode in the other."""
    conditions = torch.cat([torch.zeros(20, 1), torch.ones(44, 1)])
    episodes = torch.cat([torch.arange(20), torch.full((44,), 20)])
    chunks = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    found = recurrence(conditions, chunks, episodes, seed=0)
    assert found.episodes == (20 * 20 + 44 * 1) / 64
    means = torch.stack([chunks[:20].mean(0), chunks[20:].mean(0)])
    left = chunks - torch.cat([means[:1].expand(20, 3), means[1:].expand(44, 3)])
    assert found.inside == pytest.approx(float(left.square().sum() / (chunks - chunks.mean(0)).square().sum()))


def test_one_episode_tells_nothing() -> None:
    found = recurrence(torch.rand(64, 2), torch.rand(64, 4), torch.zeros(64, dtype=torch.int64), seed=0)
    assert found.told is None
    assert not found.recurs


@pytest.mark.parametrize("change", [{"episodes": EPISODES - 0.1}, {"inside": 0.04}, {"told": 0.06}, {"told": None}])
def test_all_three_have_to_hold(change: dict[str, float]) -> None:
    like = Recurrence(episodes=EPISODES, inside=0.06, told=0.04)
    assert like.recurs
    assert not replace(like, **change).recurs
