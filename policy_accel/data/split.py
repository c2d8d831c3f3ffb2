"""Which episodes train and which validate, drawn as in Diffusion Policy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from policy_accel.errors import UserError

FEW, ENOUGH = 3, 20


class EpisodeSplit(NamedTuple):
    """Two masks, bool [E]: every episode trains or validates."""

    train: np.ndarray
    validation: np.ndarray


def split_episodes(
    n_episodes: int, *, val_ratio: float, seed: int, max_train_episodes: int | None = None, scored: bool = True
) -> EpisodeSplit:
    """Set a share 0 <= `val_ratio` < 1 of the episodes aside, then train on at most `max_train_episodes` of the others.

    The same masks as in Diffusion Policy with the same seed: each draw starts a fresh `numpy.random.default_rng(seed)`,
    a positive `val_ratio` gives at least one validation episode as long as one is left to train on, and every episode
    that does not train validates, those left out by `max_train_episodes` (None: no limit) too. Where these are all that
    can tell how good a policy is (not `scored`), a positive ratio gives at least `FEW` of `ENOUGH` episodes or more,
    since one says little about others.

    Raises:
        UserError: a ratio outside of that range, a negative seed, a limit below 1.
    """
    if seed < 0:
        raise UserError(f"split_seed is {seed}; it must not be negative.")
    if not 0 <= val_ratio < 1:
        raise UserError(f"val_ratio is {val_ratio}; it must be at least 0 and below 1 (0.02 keeps 2 % for validation).")
    if max_train_episodes is not None and max_train_episodes < 1:
        raise UserError(f"max_train_episodes is {max_train_episodes}; give 1 or more, or null for all episodes.")
    train = np.ones(n_episodes, dtype=bool)
    least = 1 if scored or n_episodes < ENOUGH else FEW
    held_out = min(max(least, round(n_episodes * val_ratio)), n_episodes - 1) if val_ratio > 0 else 0
    train[np.random.default_rng(seed).choice(n_episodes, held_out, replace=False)] = False
    others = np.flatnonzero(train)
    kept = min(len(others), max_train_episodes or len(others))
    if kept < len(others):
        train[np.delete(others, np.random.default_rng(seed).choice(len(others), kept, replace=False))] = False
    return EpisodeSplit(train, ~train)
