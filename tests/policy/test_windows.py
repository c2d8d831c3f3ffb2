import numpy as np
import pytest
import torch

from policy_accel.policy.windows import make_windows


def brute_force(ends, horizon, pad_before, pad_after, mask):
    indices, valid = [], []
    start = 0
    for episode, end in enumerate(ends):
        if mask[episode]:
            for begin in range(start - pad_before, end + pad_after - horizon + 1):
                steps = list(range(begin, begin + horizon))
                indices.append([min(max(step, start), end - 1) for step in steps])
                valid.append([start <= step < end for step in steps])
        start = end
    return indices, valid


def test_by_hand():
    windows = make_windows(np.array([3, 5]), 3, pad_before=1, pad_after=1)
    assert windows.indices.tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 2], [3, 3, 4], [3, 4, 4]]
    assert windows.valid.tolist() == [
        [False, True, True],
        [True, True, True],
        [True, True, False],
        [False, True, True],
        [True, True, False],
    ]
    assert windows.indices.dtype == torch.int64
    assert windows.valid.dtype == torch.bool
    assert len(windows.indices) == 5


@pytest.mark.parametrize(
    ("horizon", "pad_before", "pad_after"), [(16, 1, 7), (1, 0, 0), (4, 3, 3), (5, 0, 2), (8, 2, 0)]
)
def test_against_brute_force(horizon, pad_before, pad_after):
    rng = np.random.default_rng(horizon)
    ends = np.cumsum(rng.integers(1, 40, size=30))
    mask = rng.random(30) < 0.6
    windows = make_windows(ends, horizon, pad_before=pad_before, pad_after=pad_after, episodes=mask)
    indices, valid = brute_force(ends, horizon, pad_before, pad_after, mask)
    assert windows.indices.tolist() == indices
    assert windows.valid.tolist() == valid


@pytest.mark.parametrize(("length", "count"), [(100, 93), (16, 9), (8, 1)])
def test_episode_gives_length_minus_seven(length, count):
    assert len(make_windows([length], 16, pad_before=1, pad_after=7).indices) == count


def test_short_episodes_give_none():
    windows = make_windows([7, 27], 16, pad_before=1, pad_after=7)
    assert len(windows.indices) == 13
    assert windows.indices.min() == 7


def test_window_wider_than_its_episode_repeats_both_edges():
    windows = make_windows([5, 8, 20], 6, pad_before=2, pad_after=2, episodes=np.array([False, True, False]))
    assert windows.indices.tolist() == [[5, 5, 5, 6, 7, 7], [5, 5, 6, 7, 7, 7]]
    assert windows.valid[0].tolist() == [False, False, True, True, True, False]


def test_real_episodes(shared_data):
    ends = np.load(shared_data / "pusht_lowdim.npz")["episode_ends"]
    windows = make_windows(ends, 16, pad_before=1, pad_after=7)
    assert len(windows.indices) == 25650 - 7 * 206
    episode = np.searchsorted(ends, windows.indices.numpy(), side="right")
    assert (episode == episode[:, :1]).all()


def test_no_episode_selected_gives_no_window():
    windows = make_windows([20, 40], 16, pad_before=1, pad_after=7, episodes=np.array([False, False]))
    assert windows.indices.shape == windows.valid.shape == (0, 16)


def test_moves_to_another_device():
    windows = make_windows([20], 16, pad_before=1, pad_after=7).to("meta")
    assert windows.indices.device.type == windows.valid.device.type == "meta"
