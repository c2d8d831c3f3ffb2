from __future__ import annotations

import asyncio
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
import websockets
from support.serving import Running, connected, serving
from websockets.sync.client import connect

from policy_accel.errors import UserError
from policy_accel.policy.controller import Policy
from policy_accel.robot.serving import server as server_module
from policy_accel.robot.serving.client import PolicyClient, array
from policy_accel.robot.serving.messages import encode
from policy_accel.robot.serving.served import ServedPolicy
from policy_accel.robot.serving.server import PolicyServer, ServerConfig

SEEN = {"observations": [{"state": np.arange(5.0)}]}
TOKEN = "a-secret"


@pytest.fixture(scope="module")
def running(policy: Policy) -> Iterator[Running]:
    with serving(policy, policy, token=TOKEN, max_clients=8) as running:
        yield running


def entered(running: Running, path: str = "", scheme: str = "Bearer") -> Any:
    return connected(running.url + path, additional_headers={"Authorization": f"{scheme} {TOKEN}"})


def page(running: Running, path: str, token: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(running.http + path)
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_what_is_refused_does_not_end_the_connection(running: Running) -> None:
    nan = {"observations": [{"state": np.full(5, np.nan)}]}
    deep: Any = 1.0
    for _ in range(1000):
        deep = {"a": deep}
    ragged = [[1.0, 2.0], [3.0]]
    messages: list[tuple[bytes | str, str]] = [
        ("text", "send msgpack in a binary message"),
        (b"\x00\xff", "not msgpack"),
        (encode(nan), "number 0 of the observation is not finite"),
        (encode({"observations": [{"other": [1.0]}]}), "has no entry 'state'"),
        (encode({"observations": [{"state": ragged}]}), "not made of numbers"),
        (encode({"observations": [{"state": None}]}), "."),
        (encode({"observations": [{"state": msgpack.Timestamp(1)}]}), "not made of numbers"),
        (encode({"observations": [deep]}), "an observation cannot be read (maximum recursion depth"),
        (encode({"observations": [{"x" * 1000: 1.0}]}), "..."),
    ]
    with connect(running.url, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        assert not client.protocol.extensions  # no compression, which lets a small message become a huge one
        client.recv(10)
        for message, sentence in messages:
            client.send(message)
            answer = client.recv(10)
            assert isinstance(answer, str)
            assert sentence in answer
            assert "\n" not in answer
            assert len(answer) < 600
        client.send(encode(SEEN))
        assert isinstance(client.recv(10), bytes)


def test_what_openpis_client_sends_is_answered_as_it_expects(running: Running) -> None:
    """The metadata come first; an observation alone is a message; the answer has actions and server_timing, in
    arrays with keys of bytes; a refusal is text."""
    state = np.arange(5, dtype=np.float32)
    packed = {b"__ndarray__": True, b"data": state.tobytes(), b"dtype": state.dtype.str, b"shape": state.shape}
    headers = {"Authorization": f"Api-Key {TOKEN}"}
    with connect(f"{running.url}/b", compression=None, max_size=None, additional_headers=headers) as client:
        assert msgpack.unpackb(client.recv(10))["policy"] == "b"
        client.send(msgpack.packb({"state": packed, "prompt": "push"}))
        answer = msgpack.unpackb(client.recv(10))
        assert answer["actions"][b"__ndarray__"] is True
        assert answer["actions"][b"shape"] == [8, 2]
        assert answer["server_timing"]["infer_ms"] > 0
        found = array(answer["actions"])
        client.send(encode({"observations": [{"state": state}], "chunk": 0}))
        assert array(msgpack.unpackb(client.recv(10))["actions"]).tolist() == found.tolist()
        client.send(msgpack.packb({"prompt": "push"}))
        assert "has no entry 'state'" in str(client.recv(10))


def test_pages_and_the_token(running: Running) -> None:
    assert page(running, "/health") == page(running, "/healthz") == (200, "ok\n")
    before = json.loads(page(running, "/metrics.json", TOKEN)[1])["policies"]["b"]["answers_total"]
    with entered(running, "/b") as client:
        for _ in range(3):
            client.send(encode(SEEN))
            client.recv(10)
        figures = json.loads(page(running, "/metrics.json", TOKEN)[1])
        assert figures["clients"] == 1
    assert figures["policies"]["b"]["answers_total"] == before + 3
    assert 0 < figures["policies"]["b"]["seconds_p50"] <= figures["policies"]["b"]["seconds_p99"]
    status, text = page(running, "/metrics", TOKEN)
    assert status == 200
    samples = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    assert dict(samples)['policy_accel_answers_total{policy="b"}'] == str(before + 3)
    assert all(float(value) == float(value) or "seconds" in name for name, value in samples)
    assert page(running, "/nothing", TOKEN)[0] == 404
    for token in (None, "", "a-secre", "a-secret2", "é"):
        status, text = page(running, "/metrics", token)
        assert status == 401
        assert "Authorization: Bearer TOKEN" in text
    for url, headers, status in (
        (running.url, {}, 401),
        (running.url, {"Authorization": f"Basic {TOKEN}"}, 401),
        (f"{running.url}/c", {"Authorization": f"Bearer {TOKEN}"}, 404),
        (running.url, {"Authorization": f"Bearer {TOKEN}", "Origin": "http://a.page"}, 403),
    ):
        with pytest.raises(websockets.InvalidStatus) as refused:
            connect(url, additional_headers=headers)
        assert refused.value.response.status_code == status
    with pytest.raises(RuntimeError, match="no policy 'c'; known are: a, b"):
        PolicyClient(f"{running.url}/c", TOKEN)


def test_limits_of_messages_and_clients(running: Running) -> None:
    with entered(running) as other:
        with entered(running) as client:
            client.send(bytes(running.server.max_bytes + 1))
            with pytest.raises(websockets.ConnectionClosed) as closed:
                client.recv(10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        began = time.monotonic()
        with pytest.raises(websockets.ConnectionClosed, match="1009"):
            PolicyClient(running.url, TOKEN).predict([np.zeros(2**20)])
        assert time.monotonic() - began < 10, "it was sent again and again"
        held = [entered(running) for _ in range(7)]
        for one in held:
            one.__enter__()
        with pytest.raises(websockets.InvalidStatus) as refused:
            entered(running).__enter__()
        assert refused.value.response.status_code == 503
        assert b"--max-clients" in refused.value.response.body
        for one in held:
            one.__exit__(None, None, None)
        other.send(encode(SEEN))
        assert isinstance(other.recv(10), bytes)


def test_clients_that_do_not_read_or_never_finish_hold_nobody_up(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "SEND_SECONDS", 1.0)
    with serving(policy) as running:
        monkeypatch.setattr(running.policy, "metadata", lambda: {"n_obs_steps": 2, "padding": bytes(2**18)})
        half = socket.create_connection(("127.0.0.1", running.port))
        half.sendall(b"GET / HTTP/1.1\r\n")
        deaf = socket.create_connection(("127.0.0.1", running.port))
        deaf.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        for _ in range(60):  # {} under a mask of zeros: each asks for the metadata, a quarter of a megabyte
            deaf.sendall(b"\x82\x81" + bytes(4) + b"\x80")
        client = PolicyClient(running.url)
        for _ in range(5):
            began = time.perf_counter()
            client.predict(SEEN["observations"])
            assert time.perf_counter() - began < 1.0
        most, deadline = 0, time.monotonic() + 10
        while (clients := json.loads(page(running, "/metrics.json")[1])["clients"]) > 1 or most < 2:
            most = max(most, clients)
            assert time.monotonic() < deadline, "the client that does not read is still there, or never was"
            time.sleep(0.02)
        client.socket.close()
        deaf.close()
        half.close()


def test_settings_that_make_no_sense_are_refused(policy: Policy, running: Running) -> None:
    served = {"a": ServedPolicy("a", policy, 64)}
    for settings, sentence in (
        ({"port": 70000}, "--port=70000"),
        ({"max_clients": 0}, "--max-clients=0"),
        ({"max_message_mb": float("nan")}, "--max-message-mb=nan"),
        ({"max_message_mb": float("inf")}, "--max-message-mb=inf"),
        ({"max_message_mb": 1e-5}, "--max-message-mb=1e-05 is less than"),
    ):
        with pytest.raises(UserError, match=sentence):
            PolicyServer(served, ServerConfig(**settings))
    taken = PolicyServer(served, ServerConfig(port=running.port))
    with pytest.raises(UserError, match=f"cannot listen at 127.0.0.1:{running.port}"):
        asyncio.run(taken.run(lambda host, port: None))
