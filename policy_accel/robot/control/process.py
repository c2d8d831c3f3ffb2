"""A process of its own that predicts: whatever holds it up, the interpreter of the thread that acts is free."""

from __future__ import annotations

import contextlib
import pickle
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from policy_accel.errors import UserError
from policy_accel.evaluation.host import end_with_parent
from policy_accel.evaluation.processes import start_python
from policy_accel.plugins import import_plugins, imported_plugins
from policy_accel.policy.run import LoadedRun
from policy_accel.robot.control.chunks import Chunk, Request
from policy_accel.robot.control.config import ControlConfig
from policy_accel.robot.control.joining import ChunkPredictor
from policy_accel.robot.control.promptness import PREDICTING, real_time
from policy_accel.training.devices import use_device

START = "from policy_accel.robot.control.process import run_predictor; run_predictor()"


@dataclass(frozen=True)
class Order:
    """What the process predicts: the arguments of a `ChunkPredictor`, and torch's threads."""

    run: LoadedRun
    config: ControlConfig
    settings: dict[str, Any]
    threads: int

    def predictor(self) -> ChunkPredictor:
        """That of the order."""
        run = self.run
        return ChunkPredictor(run.policy, run.sampler, run.config.training, self.config, **self.settings)


class PredictingProcess:
    """Predicts in another process, and waits for it."""

    def __init__(self, order: Order) -> None:
        self._process, self._connection = start_python(START, {})
        self._connection.send(imported_plugins())
        self._connection.send_bytes(pickle.dumps(order))  # without the shared memory that torch sends tensors by

    def __call__(self, request: Request) -> Chunk:
        """The chunk.

        Raises:
            UserError: what went wrong there; the process has ended.
        """
        try:
            self._connection.send(request)
            reply: Chunk | UserError = self._connection.recv()
        except (EOFError, OSError) as error:
            raise UserError(
                "the process that predicts has ended (see above); make another controller, or one with process=false."
            ) from error
        if isinstance(reply, UserError):
            raise reply
        return reply

    def close(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        self._connection.close()


def run_predictor() -> None:
    """The process: answers each request with a chunk or a UserError, until the other side is gone."""
    connection = Connection(int(sys.argv[1]))
    threading.Thread(target=end_with_parent, args=(int(sys.argv[2]),), daemon=True).start()
    with contextlib.suppress(EOFError, ConnectionError), contextlib.ExitStack() as stack:
        import_plugins(connection.recv())
        order: Order = pickle.loads(connection.recv_bytes())
        device = order.run.policy.device
        use_device(device, threads=order.threads, matmul_precision=order.run.config.training.matmul_precision)
        if order.config.real_time:
            stack.enter_context(real_time(PREDICTING))
        predict = order.predictor()
        while True:
            request = connection.recv()
            try:
                connection.send(predict(request))
            except UserError as error:
                connection.send(error)


def order_of(run: LoadedRun, config: ControlConfig, **settings: Any) -> Order:
    """An order with as many threads as torch has here."""
    return Order(run, config, settings, torch.get_num_threads())
