"""The process that hosts some slots of a rollout pool: `python -c "... main()" FILE_DESCRIPTOR PARENT_PID`."""

from __future__ import annotations

import os
import sys
import threading
import time
from multiprocessing.connection import Connection

from policy_accel.errors import UserError
from policy_accel.evaluation.host import LocalHost

PARENT_CHECK_SECONDS = 1.0


def main() -> None:
    """Receive the environment's spec, answer None or a UserError; then lists of tasks, a Reply or UserError to each.

    Ends when the other side closes the connection, or soon after its parent's death even where an environment hangs.
    """
    connection = Connection(int(sys.argv[1]))
    threading.Thread(target=_end_with_parent, args=(int(sys.argv[2]),), daemon=True).start()
    host = None
    try:
        try:
            host = LocalHost(connection.recv())
        except UserError as error:
            connection.send(error)
            return
        connection.send(None)
        while True:
            for task in connection.recv():
                try:
                    reply = host.perform_one(task)
                except UserError as error:
                    connection.send(error)
                    break
                connection.send(reply)
    except (EOFError, ConnectionError):
        pass
    finally:
        if host is not None:
            host.close()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(0)
