"""Actions from `policy-accel serve`. Copy this file to a robot that has numpy, msgpack and websockets 15 or later."""

import copy
import time
from typing import Any

import msgpack
import numpy as np
from websockets import exceptions
from websockets.sync.client import connect


def described(value: Any) -> dict[bytes, Any]:
    array = np.asarray(value)
    return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}


def array(x: dict[Any, Any]) -> Any:
    return np.ndarray(x[b"shape"], x[b"dtype"], bytearray(x[b"data"])) if b"__ndarray__" in x else x


class PolicyClient:
    socket: Any = None
    seed = chunk = 0

    def __init__(self, url: str = "ws://127.0.0.1:8000", token: str = "", patience: float = 30.0) -> None:
        self.url, self.auth, self.patience = url, {"Authorization": f"Bearer {token}"} if token else {}, patience
        self.metadata = self.predict([])
        self.reset()

    def reset(self, seed: int = 0) -> None:  # begins an episode, whose noise follows from the seed
        self.seed, self.chunk, self.history, self.actions = seed, 0, list[Any](), list[np.ndarray]()

    def act(self, observation: Any) -> np.ndarray:  # the action [A] to execute now; give it every observation
        self.history = [*self.history, copy.deepcopy(observation)][-self.metadata["n_obs_steps"] :]
        if not self.actions:
            self.actions = list(self.predict(self.history)["actions"])
        return self.actions.pop(0)

    def predict(self, observations: list[Any], horizon: bool = False) -> Any:  # the newest ones, oldest first
        request = {"observations": observations, "seed": self.seed, "chunk": self.chunk, "horizon": horizon}
        message, deadline = msgpack.packb(request, default=described), time.monotonic() + self.patience
        while True:  # a server that restarts is asked again, for the same chunk
            socket, self.socket = self.socket, None  # until it has answered: no answer is taken for another's
            try:
                if socket is None:
                    socket = connect(self.url, additional_headers=self.auth, compression=None, proxy=None).__enter__()
                    socket.recv(self.patience)  # what the server tells about its policy
                socket.send(message)
                answer = socket.recv(self.patience)
                self.socket, self.chunk = socket, self.chunk + isinstance(answer, bytes)
                if isinstance(answer, bytes):
                    return msgpack.unpackb(answer, object_hook=array)
                raise RuntimeError(answer)  # the server's sentence on what is wrong with the request
            except (OSError, exceptions.WebSocketException) as error:
                if isinstance(error, exceptions.InvalidStatus) and error.response.status_code < 500:
                    raise RuntimeError(error.response.body.decode()) from None
                if time.monotonic() > deadline or " 1009 " in str(error):  # a message that is too large
                    raise
                time.sleep(0.1)
