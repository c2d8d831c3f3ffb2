"""Many episodes of a policy at once, with results that depend on the seeds alone."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from policy_accel.errors import UserError
from policy_accel.evaluation.environments import EnvironmentSpec
from policy_accel.evaluation.episode import EpisodeResult, Observation, stack
from policy_accel.evaluation.host import Advance, LocalHost, Reply, Reset
from policy_accel.evaluation.processes import WorkerGroup
from policy_accel.evaluation.video import remove_partial

Host = LocalHost | WorkerGroup
ATTEMPTS = 2
"""An episode that failed is run again once: its environment may have crashed by chance."""
HOPELESS = 2
"""So many episodes that all failed before any could begin: the environment is at fault, not a seed."""


class Act(Protocol):
    """A policy, called once a round for all slots.

    `observations` is [slots, n_obs_steps, *O] (a dictionary of such arrays where the environment's space is a Dict),
    zero in idle slots; `seeds` [slots] int64, -1 in idle slots; `chunk_index` [slots] int64 counts the chunks of each
    episode from 0. Returns actions [slots, n_action_steps, *A]. Any noise should follow from (seed, chunk_index) of
    the slot alone: then a result depends on its seed only.
    """

    def __call__(self, observations: Observation, seeds: np.ndarray, chunk_index: np.ndarray) -> np.ndarray:
        """Actions for every slot."""


class RolloutPool:
    """Runs episodes in `slots` parallel slots, spread over worker processes that stay alive between runs.

    Rounds are synchronous: one call of the policy for all slots, then every slot executes its whole chunk of actions;
    a slot whose episode ended is refilled with the next seed before the next call. Neither the calls nor the results
    depend on the number of workers.

    Args:
        spec: the environment and how an episode is run.
        slots: episodes in parallel, at least 1; the batch size of the policy.
        workers: processes; 0 runs the environments in this process, where a crash or a hang takes it down.

    Attributes:
        spec: may be replaced as long as no worker runs: before the first `start` or `run`, and after `close`.
    """

    def __init__(self, spec: EnvironmentSpec, *, slots: int, workers: int) -> None:
        self.spec = spec
        self.slots = slots
        self.workers = min(workers, slots)
        self._host: Host | None = None

    def start(self) -> None:
        """Start the workers, if there are any, without waiting for them: they import the environment meanwhile.

        A worker that cannot is reported by the next `run`; without this call `run` starts them.
        """
        if self.workers:
            self._ready_host()

    def close(self, *, at_once: bool = False) -> None:
        """End the workers, `at_once` without waiting for work in progress; a later run starts new ones."""
        host, self._host = self._host, None
        if host is not None:
            host.close(at_once=at_once)

    def run(
        self,
        act: Act,
        seeds: Sequence[int],
        *,
        video_dir: Path | None = None,
        videos: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[EpisodeResult]:
        """One episode for each seed.

        An episode whose environment raises, or whose worker dies or hangs, is run a second time from its seed; if it
        fails again, its result has `error` and score 0. Other episodes of that worker start again and lose nothing.
        Where two episodes failed so before any could begin, no other one is tried.

        Args:
            act: the policy.
            seeds: of the environment's reset, each at least 0, all different.
            video_dir: where the mp4 files go, made when missing; None films nothing.
            videos: the episodes of the first `videos` seeds are filmed to video_dir/<seed>.mp4.
            progress: called with (episodes done, all episodes) when an episode is over.

        Returns:
            One result for each seed, in the order of `seeds`.

        Raises:
            UserError: the environment cannot be made, or no episode can begin; a video cannot be written; actions of a
                wrong shape, or with a NaN or infinite value. The workers are ended then, as they are by any other
                exception.
        """
        films = _film_paths(seeds, video_dir, videos)
        try:
            return _Run(self._ready_host(), self.spec.id, self.slots, seeds, films, progress).finish(act)
        except BaseException:
            self.close(at_once=True)
            raise
        finally:
            for film in films.values():
                remove_partial(film)

    def _ready_host(self) -> Host:
        if self._host is None:
            if self.workers == 0:
                self._host = LocalHost(self.spec)
            else:
                self._host = WorkerGroup(self.spec, slots=self.slots, workers=self.workers)
        return self._host


@dataclass
class _Run:
    """The schedule of one run: which episode (an index into `seeds`) each slot is at, and what is still to do."""

    host: Host
    id: str
    slots: int
    seeds: Sequence[int]
    films: dict[int, Path]
    progress: Callable[[int, int], None] | None
    queue: deque[int] = field(default_factory=deque)
    running: dict[int, int] = field(default_factory=dict)
    observations: dict[int, Observation] = field(default_factory=dict)
    chunks: dict[int, int] = field(default_factory=dict)
    failures: Counter[int] = field(default_factory=Counter)
    results: dict[int, EpisodeResult] = field(default_factory=dict)
    any_began: bool = False

    def finish(self, act: Act) -> list[EpisodeResult]:
        self.queue.extend(range(len(self.seeds)))
        while len(self.results) < len(self.seeds):
            self.refill()
            if self.running:
                self.advance(act)
        return [self.results[episode] for episode in range(len(self.seeds))]

    def refill(self) -> None:
        while self.queue and len(self.running) < self.slots:
            resets = []
            for slot in range(self.slots):
                if slot not in self.running and self.queue:
                    episode = self.running[slot] = self.queue.popleft()
                    self.chunks[slot] = 0
                    resets.append(Reset(slot, self.seeds[episode], self.films.get(episode)))
            self.settle(self.host.perform(resets))

    def advance(self, act: Act) -> None:
        seeds = np.full(self.slots, -1, dtype=np.int64)
        chunk_index = np.zeros(self.slots, dtype=np.int64)
        for slot, episode in self.running.items():
            seeds[slot] = self.seeds[episode]
            chunk_index[slot] = self.chunks[slot]
        batch = _batch([self.observations.get(slot) for slot in range(self.slots)])
        actions = _checked(np.asarray(act(batch, seeds, chunk_index)), seeds, chunk_index)
        for slot in self.running:
            self.chunks[slot] += 1
        self.settle(self.host.perform([Advance(slot, actions[slot].copy()) for slot in sorted(self.running)]))

    def settle(self, replies: dict[int, Reply]) -> None:
        again = []
        for slot in sorted(replies.keys() & self.running.keys()):
            reply = replies[slot]
            if reply.observation is not None:
                self.observations[slot] = reply.observation
                self.any_began = True
                continue
            episode = self.running.pop(slot)
            self.observations.pop(slot, None)
            self.failures[episode] += reply.error is not None
            if reply.result is not None:
                self.conclude(episode, reply.result)
            elif self.failures[episode] < ATTEMPTS:
                again.append(episode)
            else:
                failed = EpisodeResult(self.seeds[episode], score=0.0, success=False, length=0, error=reply.error)
                self.conclude(episode, failed)
                if not self.any_began and len(self.results) == HOPELESS:
                    raise UserError(f"no episode of environment '{self.id}' can begin: {reply.error}")
        self.queue.extendleft(reversed(again))

    def conclude(self, episode: int, result: EpisodeResult) -> None:
        self.results[episode] = result
        if self.progress is not None:
            self.progress(len(self.results), len(self.seeds))


def _film_paths(seeds: Sequence[int], video_dir: Path | None, videos: int) -> dict[int, Path]:
    if video_dir is None or videos < 1:
        return {}
    try:
        video_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"No films: cannot make the folder {video_dir} ({error.strerror}).", file=sys.stderr)
        return {}
    return {episode: video_dir / f"{seed}.mp4" for episode, seed in enumerate(seeds[:videos])}


def _batch(rows: list[Observation | None]) -> Observation:
    example = next(row for row in rows if row is not None)
    if isinstance(example, dict):
        idle: Observation = {key: np.zeros_like(array) for key, array in example.items()}
    else:
        idle = np.zeros_like(example)
    return stack([idle if row is None else row for row in rows])


def _checked(actions: np.ndarray, seeds: np.ndarray, chunk_index: np.ndarray) -> np.ndarray:
    if actions.ndim < 2 or len(actions) != len(seeds) or actions.shape[1] < 1:
        expected = f"[{len(seeds)}, n_action_steps, *action]"
        raise UserError(f"the policy returned actions of shape {list(actions.shape)} where {expected} was asked for")
    for slot in np.flatnonzero(seeds >= 0):
        if not np.isfinite(actions[slot]).all():
            where = f"seed {seeds[slot]}, chunk {chunk_index[slot]}"
            raise UserError(f"the policy returned a NaN or infinite action for {where}; its weights may be damaged")
    return actions
