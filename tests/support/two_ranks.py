"""Two real processes that are the ranks of one run (gloo), kept for many pieces of work."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

import torch
from support.quick import quick_runs

from policy_accel.training.ranks import joined

COUNT = 2
PATIENCE = 60.0
LOADED_ONCE = ["pytest", "policy_accel.policy.track", "policy_accel.images.track"]
"""By the server that these processes are forked from: each of them would take seconds."""
Work = Callable[..., Any]


def _serve(rank: int, port: int, connection: Connection) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(COUNT), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as ranks, quick_runs():
        while True:
            asked: tuple[Work, tuple[Any, ...]] | None = connection.recv()
            if asked is None:
                return
            work, arguments = asked
            try:
                connection.send(work(ranks, *arguments))
            except Exception as error:
                connection.send(error)


class TwoRanks:
    """Calls `work(ranks, *arguments)`, a function of `rank_work`, in both processes."""

    def __init__(self, connections: list[Connection]) -> None:
        self._connections = connections

    def __call__(self, work: Work, *arguments: Any) -> list[Any]:
        """What they return, in the order of their ranks; an exception is returned too."""
        self._send(work, arguments)
        return [_received(connection) for connection in self._connections]

    def first_of(self, work: Work, *arguments: Any) -> Any:
        """What the first returns, where the other may end."""
        self._send(work, arguments)
        return _received(self._connections[0])

    def _send(self, work: Work, arguments: tuple[Any, ...]) -> None:
        for connection in self._connections:
            connection.send((work, arguments))


def _received(connection: Connection) -> Any:
    assert connection.poll(PATIENCE), "a rank does not answer"
    return connection.recv()


@contextmanager
def two_ranks() -> Iterator[TwoRanks]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(LOADED_ONCE)
    ends = [forked.Pipe() for _ in range(COUNT)]
    processes = [forked.Process(target=_serve, args=(rank, port, ends[rank][1]), daemon=True) for rank in range(COUNT)]
    for process, (_, other) in zip(processes, ends, strict=True):
        process.start()
        other.close()  # or the end of a process would not be noticed
    try:
        yield TwoRanks([end for end, _ in ends])
    finally:
        for end, _ in ends:
            with suppress(BrokenPipeError):
                end.send(None)
        for process in processes:
            process.join(20)
            process.kill()
