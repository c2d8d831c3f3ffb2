"""A group of worker processes that survives the death of any of them."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from policy_accel.errors import UserError
from policy_accel.evaluation.environments import EnvironmentSpec
from policy_accel.evaluation.host import Advance, Reply, Request

CHUNK_TIMEOUT = 300.0
FIRST_TIMEOUT = 900.0  # until a worker has executed its first chunk: simulators compile code by then
START_TIMEOUT = 300.0
GRACE_SECONDS = 1.0
POLL_SECONDS = 0.5
WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}


def start_python(code: str, environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], Connection]:
    """Run `code` in a new process (no fork, and the caller's main script is not imported); it and its connection.

    Its arguments are the file descriptor of the other end and the process id of this one. It is in a process group of
    its own: Ctrl-C in a terminal reaches only the parent. What it prints goes to the standard error.
    """
    connection, theirs = Pipe()
    search_path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            env=os.environ | environment | {"PYTHONPATH": search_path},
            stdin=subprocess.DEVNULL,
            stdout=2,
            process_group=0,
        )
    return process, connection


class WorkerProcess:
    """One process and its connection.

    Attributes:
        started: it imported the environment.
        warm: it executed a chunk, after which nothing is left to be imported or compiled.
        deadline: on time.monotonic(), after which it is taken to hang unless it has answered.
    """

    def __init__(self, spec: EnvironmentSpec) -> None:
        self.started = False
        self.warm = False
        self.deadline = math.inf
        start = "from policy_accel.evaluation.host import run_worker; run_worker()"
        self._process, self.connection = start_python(start, WORKER_ENVIRONMENT)
        self.send(spec)

    def send(self, message: EnvironmentSpec | list[Request]) -> None:
        """Send; that a dead worker cannot receive shows when its answer is missing."""
        with contextlib.suppress(ConnectionError):
            self.connection.send(message)

    def receive(self) -> Reply | None:
        """The next message of a worker.

        Raises:
            EOFError: it is dead.
            UserError: it sent one.
        """
        try:
            message = self.connection.recv()
        except ConnectionError as error:
            raise EOFError from error
        if isinstance(message, UserError):
            raise message
        reply: Reply | None = message
        return reply

    def has_ended(self) -> bool:
        """Whether the process is gone and everything that it sent was received."""
        return self._process.poll() is not None and not self.connection.poll()

    def end(self, *, at_once: bool) -> str:
        """Close the connection and make sure that the process is gone; says how it ended."""
        self.connection.close()
        try:
            status = self._process.wait(0 if at_once else GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return f"signal {-status}: {signal.strsignal(-status)}" if status < 0 else f"exit status {status}"


class WorkerGroup:
    """Hosts slots in `workers` processes: slot i in process i modulo `workers`.

    Args:
        spec: the environment.
        slots: number of slots.
        workers: number of processes, at least 1.

    A worker that needs more than `CHUNK_TIMEOUT` for one chunk (or one reset) of one episode is taken to hang.

    The processes start side by side and are waited for at the first `perform`, which raises UserError when one dies at
    its start or cannot import the environment.
    """

    def __init__(self, spec: EnvironmentSpec, *, slots: int, workers: int) -> None:
        self._spec = spec
        self._slots = slots
        self._workers: list[WorkerProcess] = []
        try:
            for _ in range(workers):
                self._workers.append(WorkerProcess(spec))
        except BaseException:
            self.close(at_once=True)
            raise

    def perform(self, requests: Sequence[Request]) -> dict[int, Reply]:
        """Carry out at most one request a slot; the replies by slot, also of slots that were lost on the way.

        A worker carries out its requests in order and answers each when it is done. One that dies or hangs is replaced;
        the first request without an answer is the one that failed, the other episodes of that worker are lost.
        """
        for worker in self._workers:
            if not worker.started:
                self._await_start(worker)
        unanswered: dict[int, deque[Request]] = {}
        for request in requests:
            unanswered.setdefault(request.slot % len(self._workers), deque()).append(request)
        for index, own in unanswered.items():
            self._workers[index].send(list(own))
            self._set_deadline(index)

        replies: dict[int, Reply] = {}
        while unanswered:
            ready = wait([self._workers[index].connection for index in unanswered], POLL_SECONDS)
            for index, own in list(unanswered.items()):
                worker = self._workers[index]
                try:
                    if worker.connection in ready:
                        reply = worker.receive()
                        assert reply is not None
                        replies[reply.slot] = reply
                        worker.warm |= isinstance(own.popleft(), Advance)
                        self._set_deadline(index)
                    elif worker.has_ended():
                        raise EOFError
                    elif time.monotonic() > worker.deadline:
                        raise TimeoutError
                except (EOFError, TimeoutError) as error:
                    hangs = isinstance(error, TimeoutError)
                    replies |= self._replace(index, own[0].slot, replies, hangs=hangs)
                    own.clear()
                if not own:
                    del unanswered[index]
        return replies

    def close(self, *, at_once: bool = False) -> None:
        """End the processes; `at_once` does not wait for work in progress."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            worker.end(at_once=at_once)

    def _set_deadline(self, index: int) -> None:
        self._workers[index].deadline = time.monotonic() + self._patience(index)

    def _patience(self, index: int) -> float:
        return CHUNK_TIMEOUT if self._workers[index].warm else max(CHUNK_TIMEOUT, FIRST_TIMEOUT)

    def _await_start(self, worker: WorkerProcess) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        try:
            while not worker.connection.poll(POLL_SECONDS):
                if worker.has_ended():
                    raise EOFError
                if time.monotonic() > deadline:
                    raise UserError(f"a rollout worker for '{self._spec.id}' did not start within {START_TIMEOUT:g} s")
            worker.receive()
            worker.started = True
        except EOFError:
            ending = worker.end(at_once=False)
            raise UserError(f"a rollout worker for '{self._spec.id}' died at its start ({ending}); see above") from None

    def _replace(self, index: int, culprit: int, replies: dict[int, Reply], *, hangs: bool) -> dict[int, Reply]:
        seconds = self._patience(index)
        ending = self._workers[index].end(at_once=hangs)
        error = f"no answer within {seconds:g} s" if hangs else f"the worker process died ({ending})"
        self._workers[index] = WorkerProcess(self._spec)
        self._await_start(self._workers[index])
        hosted = range(index, self._slots, len(self._workers))
        lost = [slot for slot in hosted if slot not in replies or replies[slot].observation is not None]
        return {slot: Reply(slot) for slot in lost} | {culprit: Reply(culprit, error=error)}
