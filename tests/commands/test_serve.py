from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.serving import tiny_run

from policy_accel.cli import main
from policy_accel.commands.serve import is_loopback, named_runs, read_token
from policy_accel.errors import UserError
from policy_accel.extras import to_install
from policy_accel.policy.controller import Policy
from policy_accel.robot.serving.client import PolicyClient
from policy_accel.robot.serving.server import PolicyServer


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("served"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(
    number: signal.Signals,
    run_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "token").write_text("secret\n")
    found: list[Any] = []
    run = PolicyServer.run

    def drive(port: int) -> None:
        try:
            client = PolicyClient(f"ws://127.0.0.1:{port}/two", "secret")
            found.append(client.metadata)
            found.append(client.act(np.zeros(5)))
        finally:
            os.kill(os.getpid(), number)

    async def ran(self: PolicyServer, ready: Any) -> None:
        def ready_then_drive(host: str, port: int) -> None:
            ready(host, port)
            threading.Thread(target=drive, args=(port,)).start()

        await run(self, ready_then_drive)

    monkeypatch.setattr(PolicyServer, "run", ran)
    options = ["--port", "0", "--token-file", str(tmp_path / "token"), "--device", "cpu"]
    options += ["--sampling-steps", "2", "--sampler", "euler", "--spacing", "leading"]
    assert main(["serve", f"one={run_dir}", f"two={run_dir}", *options]) == 0
    metadata, action = found
    assert (metadata["policies"], metadata["policy"], metadata["sampling_steps"]) == (["one", "two"], "two", 2)
    policy = Policy.load(run_dir, device="cpu", sampler="euler", sampling_steps=2, spacing="leading")
    np.testing.assert_allclose(action, policy.act(np.zeros(5)), rtol=1e-4, atol=1e-3)
    printed = capsys.readouterr()
    assert "Serving two (step 4, euler with 2 evaluations a chunk) at ws://127.0.0.1:" in printed.out
    assert "Stopped. two: 2 answers, 0 refusals, 0 failures." in printed.out
    assert printed.err == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere: no such file or run"),
        (["{run}", "{run}"], "are both called 'walks'; name one of them: NAME="),
        (["{run}", "--max-batch", "0"], "--max-batch 0 must be at least 1"),
        (["{run}", "--port", "99999"], "--port 99999 must lie between 0 and 65535."),
        (["{run}", "--token-file", "nothing.txt"], "nothing.txt"),
        (["{run}", "--checkpoint", "7"], "7"),
        (["{run}", "--host", "not a host"], "cannot listen at not a host:8000"),
        (["{run}", "--plugins", "no_such_module"], "no_such_module"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], sentence: str, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *(word.format(run=run_dir) for word in arguments)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("policy-accel: ")
    assert sentence in error
    assert "\n" not in error


def test_the_package_that_is_missing_is_named(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "policy_accel.robot.serving.server")
    for name in [name for name in sys.modules if name.split(".")[0] == "websockets"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "websockets", None)
    assert main(["serve", str(run_dir)]) == 2
    assert f"serve needs the package websockets; {to_install('serve')}" in capsys.readouterr().err


def test_a_stranger_is_told_of_and_trust_is_passed_on(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trusted: list[bool] = []
    load = Policy.load

    def noted(run: Path, **settings: Any) -> Policy:
        trusted.append(settings["trust"])
        return load(run, **settings)

    async def ready_alone(self: PolicyServer, ready: Any) -> None:
        ready(self.config.host, 8000)

    monkeypatch.setattr(Policy, "load", noted)
    monkeypatch.setattr(PolicyServer, "run", ready_alone)
    assert main(["serve", str(run_dir), "--host", "0.0.0.0", "--trust", "--device", "cpu"]) == 0
    assert "whoever reaches 0.0.0.0:8000 can use this server" in capsys.readouterr().err
    monkeypatch.setenv("POLICY_ACCEL_TOKEN", "secret")
    assert main(["serve", str(run_dir), "--host", "0.0.0.0", "--device", "cpu"]) == 0
    assert capsys.readouterr().err == ""
    assert trusted == [True, False]


def test_names_and_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert named_runs(["a=runs/x", "runs/y"]) == {"a": Path("runs/x"), "y": Path("runs/y")}
    odd = tmp_path / "lr=3"
    odd.mkdir()
    with pytest.raises(UserError, match="'lr=3' cannot be part of an address; name the run: NAME="):
        named_runs([str(odd)])
    assert named_runs([f"a={odd}"]) == {"a": odd}
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "robot")] == [True] * 3 + [
        False
    ] * 2
    monkeypatch.delenv("POLICY_ACCEL_TOKEN", raising=False)
    assert read_token(None) is None
    for wrong in ("", " \n", "two words", "two\nlines", "é"):
        monkeypatch.setenv("POLICY_ACCEL_TOKEN", wrong)
        with pytest.raises(UserError, match="environment variable POLICY_ACCEL_TOKEN holds no token"):
            read_token(None)
    (tmp_path / "token").write_text("of-the-file\n")
    assert read_token(tmp_path / "token") == "of-the-file"
