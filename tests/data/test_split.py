import numpy as np
import pytest

from policy_accel.data import split_episodes
from policy_accel.errors import UserError


def test_reference_numbers():
    """206 episodes, 2 % validation, seed 42, 90 to train on: the published Push-T set-up."""
    split = split_episodes(206, val_ratio=0.02, seed=42, max_train_episodes=90)
    assert split.validation.sum() == 116
    assert split.validation[[18, 90, 134, 157]].all()
    train = np.flatnonzero(split.train)
    assert len(train) == 90
    assert train[:10].tolist() == [7, 9, 10, 11, 13, 16, 20, 25, 26, 27]
    assert train[-5:].tolist() == [194, 195, 198, 200, 203]
    assert train.sum() == 9897


def test_all_others_train_without_a_limit():
    split = split_episodes(206, val_ratio=0.02, seed=42)
    assert split.train.sum() == 202
    assert np.flatnonzero(split.validation).tolist() == [18, 90, 134, 157]
    assert (split.train ^ split.validation).all()


def test_limit_above_the_number_of_episodes_changes_nothing():
    limited = split_episodes(10, val_ratio=0.3, seed=0, max_train_episodes=7)
    assert limited.train.tolist() == split_episodes(10, val_ratio=0.3, seed=0).train.tolist()
    assert np.flatnonzero(limited.validation).tolist() == [5, 6, 9]


def test_every_episode_that_does_not_train_validates():
    """`~train_mask` in the reference."""
    split = split_episodes(50, val_ratio=0.2, seed=3, max_train_episodes=20)
    assert (split.train ^ split.validation).all()
    assert split.train.sum() == 20


@pytest.mark.parametrize(
    ("n_episodes", "val_ratio", "expected"),
    [(206, 0, 0), (10, 0.01, 1), (2, 0.9, 1), (1, 0.5, 0), (25, 0.1, 2), (3, 0.99, 2)],
)
def test_number_of_validation_episodes(n_episodes, val_ratio, expected):
    split = split_episodes(n_episodes, val_ratio=val_ratio, seed=7)
    assert split.validation.sum() == expected
    assert split.train.sum() == n_episodes - expected


@pytest.mark.parametrize(
    ("n_episodes", "val_ratio", "expected"),
    [(19, 0.02, 1), (20, 0.02, 3), (60, 0.02, 3), (149, 0.02, 3), (206, 0.02, 4), (60, 0.5, 30), (60, 0, 0)],
)
def test_at_least_so_many_validate_where_there_are_many(n_episodes, val_ratio, expected):
    split = split_episodes(n_episodes, val_ratio=val_ratio, seed=7, least=3)
    assert split.validation.sum() == expected
    assert split.train.sum() == n_episodes - expected


def test_seed_changes_the_draw():
    masks = {split_episodes(206, val_ratio=0.02, seed=seed).validation.tobytes() for seed in range(5)}
    assert len(masks) == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"val_ratio": 0.1, "least": 0}, "min_val_episodes is 0; give 1 or more, or val_ratio=0"),
        ({"val_ratio": 1.0}, "val_ratio is 1.0; it must be at least 0 and below 1"),
        ({"val_ratio": -0.1}, "val_ratio is -0.1"),
        ({"val_ratio": float("nan")}, "val_ratio is nan"),
        ({"max_train_episodes": 0}, "max_train_episodes is 0; give 1 or more"),
        ({"seed": -1}, "split_seed is -1; it must not be negative"),
    ],
)
def test_impossible_values(arguments, words):
    with pytest.raises(UserError, match=words):
        split_episodes(**({"n_episodes": 10, "val_ratio": 0.1, "seed": 0} | arguments))
