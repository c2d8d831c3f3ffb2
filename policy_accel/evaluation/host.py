"""Environments and the episodes in them, hosted in this process or in a worker of its own.

A rollout pool sends a host at most one `Request` a slot, and the host answers each with a `Reply`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import gymnasium
import numpy as np

from policy_accel.errors import UserError
from policy_accel.evaluation.environments import EnvironmentSpec, import_environment, make_environment
from policy_accel.evaluation.episode import Episode, EpisodeResult, Observation

PARENT_CHECK_SECONDS = 1.0


@dataclass(frozen=True)
class Reset:
    """Begin the episode of a seed in a slot; film it when a video path is given."""

    slot: int
    seed: int
    video: Path | None = None


@dataclass(frozen=True)
class Advance:
    """Execute a chunk of actions [n_action_steps, *A] in a slot's episode."""

    slot: int
    actions: np.ndarray


Request = Reset | Advance


@dataclass(frozen=True)
class Reply:
    """What became of a slot. Without any of the fields after `slot` the episode shared a worker process with one that
    failed, and must be run again.

    Attributes:
        slot: the slot.
        observation: the episode goes on; its last observations [n_obs_steps, *O].
        result: the episode is over.
        error: the episode failed, for this reason.
    """

    slot: int
    observation: Observation | None = field(default=None, repr=False)
    result: EpisodeResult | None = None
    error: str | None = None


class LocalHost:
    """Hosts the slots that it is given requests for.

    The environment's class is imported at once, with its simulator. A slot's environment is made at its first episode
    and kept; a filmed episode has an environment of its own, which can render. An environment that raised is not used
    again.

    Raises:
        UserError: the environment cannot be imported.
    """

    def __init__(self, spec: EnvironmentSpec) -> None:
        import_environment(spec)
        self._spec = spec
        self._environments: dict[tuple[int, bool], gymnasium.Env] = {}
        self._episodes: dict[int, Episode] = {}

    def perform(self, requests: Sequence[Request]) -> dict[int, Reply]:
        """Carry out at most one request a slot; the replies by slot.

        Raises:
            UserError: the environment cannot be made, or a video cannot be written.
        """
        return {request.slot: self.perform_one(request) for request in requests}

    def perform_one(self, request: Request) -> Reply:
        """The reply to a single request; an exception of the environment is an error of the episode."""
        slot = request.slot
        try:
            match request:
                case Reset():
                    self._abandon(slot)
                    environment = self._environment(slot, filmed=request.video is not None)
                    episode = Episode(environment, self._spec, request.seed, request.video)
                    self._episodes[slot] = episode
                    episode.reset()
                case Advance():
                    episode = self._episodes[slot]
                    if episode.advance(request.actions):
                        return Reply(slot, result=self._episodes.pop(slot).finish())
            return Reply(slot, observation=episode.observation())
        except UserError:
            raise
        except Exception as error:
            self._drop(slot)
            return Reply(slot, error=" ".join(f"{type(error).__name__}: {error}".split()))

    def close(self, *, at_once: bool = False) -> None:
        """Release the environments."""
        for slot in {*self._episodes, *(slot for slot, _ in self._environments)}:
            self._drop(slot)

    def _environment(self, slot: int, *, filmed: bool) -> gymnasium.Env:
        if (slot, filmed) not in self._environments:
            self._environments[slot, filmed] = make_environment(self._spec, filmed=filmed)
        return self._environments[slot, filmed]

    def _abandon(self, slot: int) -> None:
        episode = self._episodes.pop(slot, None)
        if episode is not None and episode.video is not None:
            episode.video.discard()

    def _drop(self, slot: int) -> None:
        self._abandon(slot)
        for filmed in (False, True):
            environment = self._environments.pop((slot, filmed), None)
            if environment is not None:
                with contextlib.suppress(Exception):  # it may be broken, and nobody uses it again
                    environment.close()


def run_worker() -> None:
    """The process of a worker: `python -c "...; run_worker()" FILE_DESCRIPTOR PARENT_PID`.

    It receives the environment's spec and answers None or a UserError, then lists of requests and answers each request
    with a Reply or UserError. It ends when the other side closes the connection, or soon after its parent's death even
    where an environment hangs.
    """
    connection = Connection(int(sys.argv[1]))
    threading.Thread(target=end_with_parent, args=(int(sys.argv[2]),), daemon=True).start()
    with contextlib.suppress(EOFError, ConnectionError), contextlib.ExitStack() as stack:
        try:
            host = LocalHost(connection.recv())
        except UserError as error:
            connection.send(error)
            return
        stack.callback(host.close)
        connection.send(None)
        while True:
            for request in connection.recv():
                try:
                    connection.send(host.perform_one(request))
                except UserError as error:
                    connection.send(error)
                    break


def end_with_parent(parent: int) -> None:
    """End this process soon after its parent's death; never returns."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(0)
