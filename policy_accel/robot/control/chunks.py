"""What a controller and its predictor say to each other, and a predictor in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

import numpy as np

from policy_accel.errors import UserError
from policy_accel.robot.control.promptness import real_time


@dataclass(frozen=True)
class Request:
    """A chunk that is asked for.

    Attributes:
        observations: the newest ones, oldest first, as the policy takes them: "state" [O] and pictures [H, W, C].
        tick: control step of the newest of them, from the start of the episode on.
        latency_steps: actions whose time will have passed when the chunk is there, as it is expected.
        seed: of the episode's noise.
        number: of the chunk in its episode, from 0.
        slot: which of several robots asks.
    """

    observations: Sequence[Mapping[str, np.ndarray]]
    tick: int
    latency_steps: int = 0
    seed: int = 0
    number: int = 0
    slot: int = 0


@dataclass(frozen=True)
class Chunk:
    """Actions [steps, A] in the data's units: row i is for control step tick + i. The first `predicted` rows are the
    policy's; what follows them is for a chunk that comes too late."""

    tick: int
    actions: np.ndarray
    predicted: int


Predict = Callable[[Request], Chunk]


class Predictor(Protocol):
    """What a controller asks for chunks. It takes one request at a time."""

    def submit(self, request: Request) -> None:
        """Begin with a chunk, without waiting for it."""

    def take(self, *, wait: bool) -> Chunk | None:
        """The chunk that was asked for, None where it is not ready; raises what went wrong in its prediction. With
        `wait` it waits, if time goes on meanwhile."""

    def discard(self) -> None:
        """Give up the chunk that was asked for."""

    def close(self) -> None:
        """Be asked no more."""


class PredictorThread:
    """Predicts in a thread of its own: the one that acts waits for nothing but the interpreter's lock, which the
    predicting one gives back in every operation of torch.

    Args:
        predict: makes a chunk.
        priority: of the thread, in real time; 0 for none.
        end: called by `close`, when the thread has ended.
    """

    def __init__(self, predict: Predict, priority: int = 0, end: Callable[[], None] = lambda: None) -> None:
        self._predict, self._priority, self._end, self._closed = predict, priority, end, False
        self._requests: SimpleQueue[Request | None] = SimpleQueue()
        self._chunks: SimpleQueue[Chunk | Exception] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="policy", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """See `Predictor.submit`.

        Raises:
            UserError: it is closed.
        """
        if self._closed:
            raise UserError("the controller is closed; make another one with policy.controller(...).")
        self._requests.put(request)

    def take(self, *, wait: bool) -> Chunk | None:
        """See `Predictor.take`."""
        try:
            found = self._chunks.get(block=wait)
        except Empty:
            return None
        if isinstance(found, Exception):
            raise found
        return found

    def discard(self) -> None:
        """See `Predictor.discard`; returns when the prediction under way has ended."""
        self._chunks.get()

    def close(self) -> None:
        """See `Predictor.close`; returns when the prediction under way has ended."""
        self._closed = True
        self._requests.put(None)
        self._thread.join()
        self._end()

    def _work(self) -> None:
        with real_time(self._priority) if self._priority else nullcontext():
            self._answer()

    def _answer(self) -> None:
        while (request := self._requests.get()) is not None:
            try:
                self._chunks.put(self._predict(request))
            except Exception as error:  # it is raised where the chunk is taken
                self._chunks.put(error)
