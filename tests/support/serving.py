"""A tiny policy, a server in a thread of the tests, and clients that send what they like."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import websockets.sync.client
from support.compositions import composed_once
from support.data import write_zarr

from policy_accel.data import Episodes
from policy_accel.policy.controller import Policy
from policy_accel.policy.track import ROBOT
from policy_accel.robot.serving.served import ServedPolicy
from policy_accel.robot.serving.server import PolicyServer, ServerConfig

composed = composed_once(ROBOT.config)


def tiny_run(folder: Path) -> Path:
    """A run of a tiny U-Net with the keys of Push-T, after four updates on random walks."""
    generator = np.random.default_rng(0)
    arrays = {
        name: np.cumsum(generator.normal(size=(90, size)), axis=0).astype("f4")
        for name, size in (("state", 5), ("action", 2))
    }
    write_zarr(folder / "walks.zarr.zip", Episodes(arrays, np.array([30, 60, 90])))
    net = ["model=unet", "model.down_dims=[8,16]", "model.kernel_size=3", "model.step_embedding_dim=8"]
    training = ["training.steps=4", "training.batch_size=8", "training.device=cpu", "sampling.steps=3"]
    scored = ["task.max_steps=30", "evaluation.episodes=0", "evaluation.workers=0", "evaluation.videos=0"]
    scored += ["evaluation.slots=2"]
    where = [f"task.data={folder / 'walks.zarr.zip'}", f"run_dir={folder / 'walks'}"]
    ROBOT.train(composed(["task=pusht_state", *net, *training, *scored, *where]))
    return folder / "walks"


class Running:
    """A server that runs: `url` of its first policy, `http` of its pages."""

    def __init__(self, server: PolicyServer) -> None:
        self.server = server
        self.policy = next(iter(server.policies.values()))

    def at(self, port: int) -> None:
        self.port, self.url, self.http = port, f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}"


@contextmanager
def serving(*policies: Policy, max_batch: int = 64, **settings: Any) -> Iterator[Running]:
    """Serve policies, called a, b and so on, until the end of the block."""
    served = {name: ServedPolicy(name, policy, max_batch) for name, policy in zip("abc", policies, strict=False)}
    config = ServerConfig(**{"port": 0, **settings})
    running, ready = Running(PolicyServer(served, config)), threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await running.server.run(lambda host, port: (running.at(port), ready.set()))

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(20)
    try:
        yield running
    finally:
        loops[0].call_soon_threadsafe(running.server.stop)
        thread.join(20)
        assert not thread.is_alive()


@contextmanager
def connected(url: str, **settings: Any) -> Iterator[websockets.sync.client.ClientConnection]:
    """A connection whose first message, the metadata, was read."""
    with websockets.sync.client.connect(url, compression=None, proxy=None, **settings) as socket:
        socket.recv(10)
        yield socket
