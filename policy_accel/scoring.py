"""A process of its own that scores the checkpoints of a run while the run trains."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from subprocess import Popen
from typing import Any

import torch

from policy_accel.errors import UserError
from policy_accel.evaluation.host import end_with_parent
from policy_accel.evaluation.processes import start_python
from policy_accel.plugins import imported_plugins
from policy_accel.progress import Progress
from policy_accel.training.scoring import Result, Scored

START = "from policy_accel.track import run_scorer; run_scorer()"
Score = Callable[[int, Callable[[str], None]], Result]
"""Scores the checkpoint of a step, and may say something to the user."""


@dataclass(frozen=True)
class Order:
    """What is to be scored, and how.

    Attributes:
        track: of the run.
        config: of the run, as plain values.
        device: where the model goes.
        threads: of torch on the CPU: those of the training, so that the bits are the same.
        plugins: modules to import first.
    """

    track: str
    config: dict[str, Any]
    device: str
    threads: int
    plugins: tuple[str, ...]


class ScoringProcess:
    """A `Scorer` whose process starts with the first score and stays for the others.

    Args:
        track: of the run.
        config: of the run, as plain values.
        device: of the training.
        threads: of torch in the training.
    """

    def __init__(self, track: str, config: dict[str, Any], device: torch.device, threads: int) -> None:
        self._order = Order(track, config, str(device), threads, imported_plugins())
        self._lock, self._closed = threading.Lock(), False
        self._process: Popen[bytes] | None = None
        self._connection: Connection

    def score(self, step: int) -> Scored:
        """See `Scorer.score`."""
        try:
            with self._lock:
                if self._closed:
                    raise EOFError
                if self._process is None:
                    self._process, self._connection = start_python(START, {})
                    self._connection.send(self._order)
            self._connection.send(step)
            reply: Scored | UserError = self._connection.recv()
        except (EOFError, OSError) as error:
            raise UserError(
                f"the process that scores beside the training ended at the checkpoint of update {step} (see above); "
                "start the run again, or set evaluation.overlap=false."
            ) from error
        if isinstance(reply, UserError):
            raise reply
        return reply

    def close(self) -> None:
        """See `Scorer.close`."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()


def serve(scorer_of: Callable[[Order], Score]) -> None:
    """Work as the process: receive an `Order`, then steps, and answer each with a result or a UserError."""
    connection = Connection(int(sys.argv[1]))
    threading.Thread(target=end_with_parent, args=(int(sys.argv[2]),), daemon=True).start()
    Progress.silent = True
    with contextlib.suppress(EOFError, ConnectionError):
        order: Order = connection.recv()
        score: Score | None = None
        while True:
            step, said = connection.recv(), list[str]()
            try:
                score = score or scorer_of(order)
                connection.send((score(step, said.append), said))
            except UserError as error:
                connection.send(error)
