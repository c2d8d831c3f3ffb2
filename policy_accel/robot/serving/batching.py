"""One thread that predicts for all clients of a server: requests that wait together are one batch."""

from __future__ import annotations

import asyncio
import sys
import threading
from queue import SimpleQueue

from policy_accel.errors import one_line
from policy_accel.robot.serving.served import Connection, Job, ServedPolicy


class Batcher:
    """The thread that reads requests and predicts, for all clients and policies of a server."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    async def submit(self, served: ServedPolicy, connection: Connection, message: bytes) -> bytes | str:
        """The answer to a message: bytes, or the sentence of a refusal."""
        job = Job(served, connection, message)
        self._jobs.put(job)
        return await asyncio.shield(asyncio.wrap_future(job.answer))

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (jobs := self._waiting()) is not None:
            for served in dict.fromkeys(job.served for job in jobs):
                own = [job for job in jobs if job.served is served]
                try:
                    served.answer(own)
                except Exception as error:  # of this server, which goes on
                    print(f"policy-accel: {served.name}: {type(error).__name__}: {one_line(error)}", file=sys.stderr)
                    for job in own:
                        served.fail(job, error)

    def _waiting(self) -> list[Job] | None:
        """All jobs that wait, at least one; None at the end."""
        jobs = [self._jobs.get()]
        while not self._jobs.empty():
            jobs.append(self._jobs.get())
        if None in jobs:
            self._jobs.put(None)  # after those that came before it
        found = [job for job in jobs if job is not None]
        return found or None
