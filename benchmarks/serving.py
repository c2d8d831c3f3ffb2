"""Load on `policy-accel serve`: many robots, and clients that send nonsense, do not read, are killed, or never finish.

    python benchmarks/serving.py --minutes 10 --output benchmarks/results/serving_cpu.json

Every robot asks for a chunk of actions `--rate` times a second, as one at 20 Hz that executes 8 does 2.5 times. The
server is stopped by SIGTERM and started again after a fifth of the time; the robots stay. At the end every action that
any robot was given is compared with what the policy predicts for it alone, and the server's memory is fitted with a
line over the time since the restart. Without --run the network of the default task is served, trained for one update.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgpack
import numpy as np
from results import hardware, write_result
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from policy_accel.robot.serving import client as client_module
from policy_accel.robot.serving.client import PolicyClient

RESTART_AT = 0.2
SETTLING = 0.3
"""Share of the time since the restart after which memory is looked at."""
TOLERANCE = 1e-3
"""Relative difference of an action from the one of the policy alone: batches of other sizes sum in another order."""
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nAuthorization: Bearer %b\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
NONSENSE = (b"", b"\xc1", b"\xdd\xff\xff\xff\xff", os.urandom(1000), msgpack.packb({"observations": [{"state": "a"}]}))
KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from client import PolicyClient
client = PolicyClient(sys.argv[2], sys.argv[3])
print("ready", flush=True)
while True:
    client.predict([[0.0] * client.metadata["observation"]["numbers"]])
"""


class ServerUnderLoad(Protocol):
    """What is measured; `port` is the same after every start."""

    port: int
    token: str

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def resident_mb(self) -> float: ...


class ServerProcess:
    """`policy-accel serve` in a process of its own."""

    def __init__(self, run_dir: Path, *options: str) -> None:
        self.token, self.port, self._told = "a-token-of-the-load-test", 0, [str(run_dir), *options]

    def start(self) -> None:
        command = [sys.executable, "-m", "policy_accel", "serve", *self._told, "--port", str(self.port)]
        known = {**os.environ, "POLICY_ACCEL_TOKEN": self.token}
        self.process = subprocess.Popen(command, env=known, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        if "ws://" not in first:
            raise SystemExit(f"the server did not start: {first}")
        self.port = int(first.rpartition(":")[2].split("/")[0])

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        print(self.process.communicate(timeout=30)[0].strip(), flush=True)
        if self.process.returncode:
            raise SystemExit(f"the server ended with status {self.process.returncode}")

    def resident_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def observation(seed: int, chunk: int, numbers: int) -> np.ndarray:
    """What the robot `seed` sees when it asks for its prediction number `chunk`."""
    return np.random.default_rng([seed, chunk]).uniform(0.0, 500.0, numbers)


class Robot(threading.Thread):
    """Asks `rate` times a second until it is told to stop.

    Attributes:
        answers: chunk -> its actions.
        latencies: (when it was asked, seconds) of every request.
        asked: requests, answered or not.
        problem: what ended it before its time.
    """

    def __init__(self, seed: int, server: ServerUnderLoad, rate: float, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.seed, self.server, self.period, self.over = seed, server, 1.0 / rate, over
        self.answers: dict[int, np.ndarray] = {}
        self.latencies: list[tuple[float, float]] = []
        self.asked, self.problem = 0, ""

    def run(self) -> None:
        try:
            client = PolicyClient(f"ws://127.0.0.1:{self.server.port}", self.server.token, patience=60.0)
            client.reset(self.seed)
            numbers = client.metadata["observation"]["numbers"]
            due = time.monotonic() + np.random.default_rng(self.seed).uniform(0.0, self.period)
            while not self.over.wait(max(0.0, due - time.monotonic())):
                began = time.monotonic()
                self.asked += 1
                answer = client.predict([observation(self.seed, client.chunk, numbers)])
                self.latencies.append((began, time.monotonic() - began))
                if answer["seed"] != self.seed or answer["chunk"] in self.answers:
                    raise ValueError(f"an answer for {answer['seed']}, {answer['chunk']}")
                self.answers[answer["chunk"]] = answer["actions"]
                due = max(due + self.period, time.monotonic())
        except Exception as error:
            self.problem = f"{type(error).__name__}: {error}"


class Troublemaker(threading.Thread):
    """Sends nonsense, too much, nothing, without a token; does not read; is killed. One of each a round."""

    def __init__(self, server: ServerUnderLoad, folder: Path, over: threading.Event, pause: float) -> None:
        super().__init__(daemon=True)
        self.server, self.over, self.pause, self.folder = server, over, pause, folder
        self.rounds = self.refused = self.killed = 0
        self.held: list[socket.socket] = []

    def run(self) -> None:
        while not self.over.wait(self.pause):
            for trouble in (self.nonsense, self.too_much, self.no_token, self.vanish, self.do_not_read, self.be_killed):
                with suppress(OSError, WebSocketException):  # the server restarts
                    trouble()
            self.rounds += 1
        for left in self.held:
            left.close()

    def connection(self) -> Any:
        url, token = f"ws://127.0.0.1:{self.server.port}", {"Authorization": f"Bearer {self.server.token}"}
        return connect(url, additional_headers=token, compression=None, proxy=None)

    def nonsense(self) -> None:
        with self.connection() as client:
            client.recv(10)
            for message in NONSENSE:
                client.send(message)
                self.refused += isinstance(client.recv(10), str)

    def too_much(self) -> None:
        with self.connection() as client:
            client.send(bytes(msgpack.unpackb(client.recv(10))["max_message_bytes"] + 1))
            client.recv(10)

    def no_token(self) -> None:
        with connect(f"ws://127.0.0.1:{self.server.port}", proxy=None):
            raise SystemExit("a client without the token was let in")

    def raw(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.server.port))
        client.sendall(UPGRADE % self.server.token.encode())
        return client

    def vanish(self) -> None:
        """In the middle of a message, without a word."""
        client = self.raw()
        client.sendall(b"\x82\xfe\x10\x00abcd")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()

    def do_not_read(self) -> None:
        """Two connections stay, of the last round: one asks without end, one has not even said what it wants."""
        for left in self.held:
            left.close()
        self.held = [self.raw(), socket.create_connection(("127.0.0.1", self.server.port))]
        self.held[0].settimeout(0.2)
        with suppress(TimeoutError):
            self.held[0].sendall((b"\x82\x81" + bytes(4) + b"\x80") * 2000)  # each asks for the metadata

    def be_killed(self) -> None:
        (self.folder / "killed.py").write_text(KILLED)
        where = [str(Path(client_module.__file__).parent), f"ws://127.0.0.1:{self.server.port}", self.server.token]
        command = [sys.executable, str(self.folder / "killed.py"), *where]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            self.killed += bool(process.stdout.readline())
            process.kill()


def load(server: ServerUnderLoad, clients: int, seconds: float, rate: float, folder: Path, pause: float) -> dict:
    """Load the server, with one restart; figures and the robots."""
    over = threading.Event()
    server.start()
    robots = [Robot(seed, server, rate, over) for seed in range(clients)]
    trouble = Troublemaker(server, folder, over, pause)
    began = time.monotonic()
    for thread in (*robots, trouble):
        thread.start()
    time.sleep(seconds * RESTART_AT)
    stopped = time.monotonic()
    server.stop()
    server.start()
    again = time.monotonic()
    memory = []
    while (age := time.monotonic() - again) < seconds * (1.0 - RESTART_AT):
        memory.append((age, server.resident_mb()))
        time.sleep(min(1.0, seconds / 20))
    over.set()
    for thread in (*robots, trouble):
        thread.join(90)
    with urllib.request.urlopen(page(server, "metrics.json")) as answer:
        told = json.loads(answer.read())
    server.stop()
    latencies = [
        (asked - began, waited)
        for robot in robots
        for asked, waited in robot.latencies
        if not (asked < again and asked + waited > stopped)  # those that waited for the restart
    ]
    waits = 1000 * np.array([waited for _, waited in latencies])
    used = np.array([row for row in memory if row[0] > SETTLING * memory[-1][0]])
    asked = sum(robot.asked for robot in robots)
    figures = {
        "clients": clients,
        "seconds": seconds,
        "requests": asked,
        "requests_per_second": asked / (seconds + again - stopped),
        "unanswered": asked - sum(len(robot.answers) for robot in robots),
        "problems": [f"robot {robot.seed}: {robot.problem}" for robot in robots if robot.problem],
        "milliseconds": dict(zip(("p50", "p99", "most"), np.percentile(waits, [50, 99, 100]).tolist(), strict=True)),
        "restart_seconds": again - stopped,
        "longest_wait_seconds": max(waited for robot in robots for _, waited in robot.latencies),
        "troublemaker": {name: getattr(trouble, name) for name in ("rounds", "refused", "killed")},
        "resident_mb": {
            "first": float(used[0, 1]),
            "last": float(used[-1, 1]),
            "most": float(used[:, 1].max()),
            "per_minute": 60 * float(np.polyfit(*used.T, 1)[0]),
        },
        "server": told,
    }
    return {"figures": figures, "robots": robots}


def page(server: ServerUnderLoad, name: str) -> urllib.request.Request:
    return urllib.request.Request(
        f"http://127.0.0.1:{server.port}/{name}", headers={"Authorization": f"Bearer {server.token}"}
    )


def wrong_actions(run: Any, noise_seed: int, robots: list[Robot]) -> tuple[int, float]:
    """How many answers differ from what the policy of a run predicts for them, and the largest difference by the
    spread of the actions."""
    import torch

    from policy_accel.policy.planner import chunk_noise

    policy, steps, wrong, largest = run.policy, run.config.policy.n_obs_steps, 0, 0.0
    rows = [(robot.seed, chunk, found) for robot in robots for chunk, found in robot.answers.items()]
    for start in range(0, len(rows), 64):
        seeds, chunks, found = zip(*rows[start : start + 64], strict=True)
        seen = [observation(seed, chunk, policy.input_dim) for seed, chunk in zip(seeds, chunks, strict=True)]
        windows = torch.from_numpy(np.repeat(np.array(seen)[:, None], steps, axis=1))
        noise = chunk_noise(policy.noise_shape(run.sampler), noise_seed, seeds, chunks)
        expected = policy.predict(windows, noise, sampler=run.sampler).numpy()
        off = np.abs(np.array(found) - expected).max(axis=(1, 2)) / max(1.0, float(np.ptp(expected)))
        wrong += int((off > TOLERANCE).sum())
        largest = max(largest, float(off.max()))
    return wrong, largest


def default_run(folder: Path) -> Path:
    """A run of the default network, trained for one update."""
    settings = ["task=pusht_state", "training.steps=1", "training.batch_size=8", "evaluation.episodes=0"]
    command = [sys.executable, "-m", "policy_accel", "train", *settings, f"run_dir={folder / 'served'}"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "served"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="run directory of a policy of numbers")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=2.5, help="predictions a second that a robot asks for")
    parser.add_argument("--sampling-steps", type=int, default=4)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    from policy_accel import Policy

    with tempfile.TemporaryDirectory() as folder:
        run_dir = options.run or default_run(Path(folder))
        steps = options.sampling_steps
        server = ServerProcess(run_dir, "--sampling-steps", str(steps), "--device", "cpu")
        done = load(server, options.clients, 60 * options.minutes, options.rate, Path(folder), pause=1.0)
        policy = Policy.load(run_dir, device="cpu", sampling_steps=steps)
    wrong, largest = wrong_actions(policy.run, 0, done["robots"])
    figures = {
        "rate": options.rate,
        "sampling_steps": steps,
        **done["figures"],
        "wrong_answers": wrong,
        "largest_difference": largest,
        "load_average": os.getloadavg(),
    }
    print(json.dumps(figures, indent=2))
    if options.output:
        write_result(options.output, figures)
    else:
        print(json.dumps(hardware()))


if __name__ == "__main__":
    main()
