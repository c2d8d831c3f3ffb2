"""Attempts of a scripted expert: played in order by one or several processes, and those that succeed end to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np

from policy_accel.data.episodes import Episodes
from policy_accel.errors import UserError
from policy_accel.memory import release_freed_memory

Episode = TypeVar("Episode")
FIRST_START_SEED = 2**31  # demonstrations start from seeds at or above it; evaluations use seeds below it
RELEASE_BYTES = 64 * 2**20  # of episodes that are copied and freed before the system gets them back


@dataclass(frozen=True)
class Attempt:
    """What one run of an expert recorded.

    Attributes:
        arrays: key -> [T, ...], one row a step.
        success: whether it ended as it should.
        facts: JSON-able facts about it, as the seed of its start.
    """

    arrays: dict[str, np.ndarray]
    success: bool
    facts: dict[str, Any] = field(default_factory=dict)


def start_seed(seed: int, index: int) -> int:
    """The environment seed of the index-th attempt under a generation seed: FIRST_START_SEED to 2**32 - 1."""
    return int(np.random.SeedSequence((seed, index)).generate_state(1)[0]) | FIRST_START_SEED


def successful_episodes(
    attempt: Callable[[int], Episode | None],
    episodes: int,
    seed: int,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Episode]:
    """The first `episodes` attempts that succeed, in the order of their numbers whatever the number of workers.

    Args:
        attempt: attempt number 0, 1, 2, ... -> its episode, or None when it failed; picklable for several workers.
        episodes: how many to return, at least 1.
        seed: 0 or above; only checked here, `attempt` uses it.
        workers: processes that share the work; 0 or 1 plays in this process.
        progress: called with (successful episodes so far, episodes).

    Raises:
        UserError: `episodes` below 1, `seed` or `workers` below 0, or a worker process that died.
    """
    for name, value, least in (("episodes", episodes, 1), ("seed", seed, 0), ("workers", workers, 0)):
        if value < least:
            raise UserError(f"{name} is {value}; give {least} or more")
    kept: list[Episode] = []
    for episode in _played(attempt, episodes, workers):
        if episode is not None:
            kept.append(episode)
            if progress is not None:
                progress(len(kept), episodes)
        if len(kept) == episodes:
            break
    return kept


def end_to_end(attempts: Sequence[Attempt], source: str, metadata: dict[str, Any] | None = None) -> Episodes:
    """The data set of some attempts; their arrays are taken out of them one by one, not to be in memory twice."""
    first = next(iter(attempts[0].arrays))
    ends = np.cumsum([len(attempt.arrays[first]) for attempt in attempts], dtype=np.int64)
    arrays = {key: np.empty((ends[-1], *rows.shape[1:]), rows.dtype) for key, rows in attempts[0].arrays.items()}
    freed = 0
    for attempt, end in zip(attempts, ends, strict=True):
        for key, rows in attempt.arrays.items():
            arrays[key][end - len(rows) : end] = rows
            freed += rows.nbytes
        del rows
        attempt.arrays.clear()
        if freed >= RELEASE_BYTES:
            release_freed_memory()
            freed = 0
    facts = tuple(attempt.facts for attempt in attempts)
    return Episodes(arrays, ends, source, metadata or {}, facts if any(facts) else ())


def _played(attempt: Callable[[int], Episode | None], episodes: int, workers: int) -> Iterator[Episode | None]:
    """Attempts 0, 1, 2, ... in this order, without end."""
    index = 0
    if workers < 2:
        while True:
            yield attempt(index)
            index += 1
    executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        while True:
            count = max(workers, min(episodes, 8 * workers))
            yield from executor.map(attempt, range(index, index + count))
            index += count
    except BrokenProcessPool as error:
        raise UserError("a process of the expert died, perhaps for lack of memory; use fewer workers") from error
    finally:
        executor.shutdown(cancel_futures=True)
