"""Which episodes train and which validate, drawn as in Diffusion Policy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from policy_accel.errors import UserError

MANY = 20
"""Episodes of which more than one can be spared."""


class EpisodeSplit(NamedTuple):
    """Two masks, bool [E]: every episode trains or validates."""

    train: np.ndarray
    validation: np.ndarray


def split_episodes(
    n_episodes: int, *, val_ratio: float, seed: int, max_train_episodes: int | None = None, least: int = 1
) -> EpisodeSplit:
    """Set a share 0 <= `val_ratio` < 1 of the episodes aside, then train on at most `max_train_episodes` of the others.

    The same masks as in Diffusion Policy with the same seed: each draw starts a fresh `numpy.random.default_rng(seed)`,
    a positive `val_ratio` gives at least one validation episode as long as one is left to train on, and every episode
    that does not train validates, those left out by `max_train_episodes` (None: no limit) too. Of `MANY` episodes or
    more a positive ratio gives at least `least`.

    Raises:
        UserError: a ratio outside of that range, a negative seed, a limit or a least number below 1.
    """
    if seed < 0:
        raise UserError(f"split_seed is {seed}; it must not be negative.")
    if not 0 <= val_ratio < 1:
        raise UserError(f"val_ratio is {val_ratio}; it must be at least 0 and below 1 (0.02 keeps 2 % for validation).")
    if max_train_episodes is not None and max_train_episodes < 1:
        raise UserError(f"max_train_episodes is {max_train_episodes}; give 1 or more, or null for all episodes.")
    if least < 1:
        raise UserError(f"min_val_episodes is {least}; give 1 or more, or val_ratio=0 to train on all episodes.")
    train = np.ones(n_episodes, dtype=bool)
    wanted = max(least if n_episodes >= MANY else 1, round(n_episodes * val_ratio))
    held_out = min(wanted, n_episodes - 1) if val_ratio > 0 else 0
    train[np.random.default_rng(seed).choice(n_episodes, held_out, replace=False)] = False
    others = np.flatnonzero(train)
    kept = min(len(others), max_train_episodes or len(others))
    if kept < len(others):
        train[np.delete(others, np.random.default_rng(seed).choice(len(others), kept, replace=False))] = False
    return EpisodeSplit(train, ~train)
