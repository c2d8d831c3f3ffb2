"""The load test of the server in small: benchmarks/serving.py."""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.serving import serving, tiny_run

from policy_accel.policy.controller import Policy
from policy_accel.robot.serving import server

REPOSITORY = Path(__file__).resolve().parents[2]


class ServerThread:
    """Serves in this process; memory is not looked at."""

    port, token = 0, "secret"

    def __init__(self, policy: Policy) -> None:
        self.policy, self.stack = policy, ExitStack()

    def start(self) -> None:
        running = self.stack.enter_context(serving(self.policy, port=self.port, token=self.token))
        self.port = running.port

    def stop(self) -> None:
        self.stack.close()

    def resident_mb(self) -> float:
        return 1.0


def test_a_server_under_load_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Robots, nonsense, clients that do not read, vanish or are killed, and a restart."""
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    for name in ("OPEN_SECONDS", "SEND_SECONDS", "CLOSE_SECONDS"):
        monkeypatch.setattr(server, name, 0.5)
    bench = importlib.import_module("serving")
    policy = Policy.load(tiny_run(tmp_path), device="cpu")
    done = bench.load(ServerThread(policy), clients=5, seconds=2.0, rate=20.0, folder=tmp_path, pause=0.1)
    figures = done["figures"]
    assert (figures["unanswered"], figures["problems"]) == (0, [])
    assert figures["requests"] > 30
    assert min(figures["troublemaker"].values()) > 0
    assert 0 < figures["milliseconds"]["p50"] <= figures["milliseconds"]["p99"]
    assert figures["server"]["policies"]["a"]["failures_total"] == 0
    assert bench.wrong_actions(policy.run, 0, done["robots"])[0] == 0
    done["robots"][2].answers[1] += 1.0
    assert bench.wrong_actions(policy.run, 0, done["robots"])[0] == 1
