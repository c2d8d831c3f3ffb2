"""The server of `policy-accel serve`: websockets for clients, and pages about itself over HTTP, on one port."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from urllib.parse import unquote, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from policy_accel.errors import UserError, did_you_mean, one_line
from policy_accel.robot.serving.batching import Batcher
from policy_accel.robot.serving.figures import prometheus, server_record
from policy_accel.robot.serving.messages import encode
from policy_accel.robot.serving.served import Connection, ServedPolicy

SPARE_BYTES, SPARE_FACTOR = 2**20, 4
"""How much larger than its observations need it a message may be: pictures may be float32, and others may be there."""
HEALTH = ("health", "healthz")
METRICS = ("metrics", "metrics.json")
OPEN_SECONDS, SEND_SECONDS, CLOSE_SECONDS = 5.0, 5.0, 2.0
"""How long a client may take to connect, to read an answer, and to leave."""
GOING_AWAY = 1001


@dataclass(frozen=True)
class ServerConfig:
    """How policies are served."""

    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 for every one of the machine."""
    port: int = 8000
    """0 takes a free one."""
    token: str | None = None
    """What clients must know; None lets everybody in."""
    max_clients: int = 256
    """Connections at a time."""
    max_message_mb: float | None = None
    """Largest message in 2^20 bytes; None for 1 and four times what the observations of a request take."""

    def check(self) -> None:
        """Raise UserError for a number out of range."""
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port={self.port} is no port; choose one from 1 to 65535, or 0 for a free one.")
        if self.max_clients < 1:
            raise UserError(f"--max-clients={self.max_clients} must be at least 1.")
        if self.max_message_mb is not None and not 0 < self.max_message_mb < math.inf:
            raise UserError(f"--max-message-mb={self.max_message_mb} must be a number above 0.")


class PolicyServer:
    """Serves policies until it is told to stop.

    Args:
        policies: by the names that clients ask for; the first one is for those that ask for none.
        config: of the server.

    Raises:
        UserError: settings out of range, or messages too small for the policies.
    """

    def __init__(self, policies: Mapping[str, ServedPolicy], config: ServerConfig) -> None:
        config.check()
        self.policies, self.config, self.began = policies, config, time.monotonic()
        self.max_bytes = self._max_bytes()
        self._idle: dict[ServerConnection, bool] = {}
        self._stop = asyncio.Event()
        for served in policies.values():
            served.about = {
                "server": f"policy-accel {version('policy-accel')}",
                "policies": list(self.policies),
                "max_message_bytes": self.max_bytes,
            }

    async def run(self, ready: Callable[[str, int], None]) -> None:
        """Serve until SIGTERM, Ctrl-C or `stop`; requests that were read are answered before it ends.

        Args:
            ready: called with the address and the port when clients can connect.

        Raises:
            UserError: the address cannot be listened at.
        """
        self._batcher = Batcher()
        self._on_signals(self.stop)
        try:
            server = await self._listen()
            ready(self.config.host, server.sockets[0].getsockname()[1])
            await self._stop.wait()
            self._on_signals(None)  # a second one ends everything at once
            await self._close(server)
        finally:
            self._on_signals(None)
            self._batcher.close()

    @staticmethod
    def _on_signals(act: Callable[[], None] | None) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # Windows, or no main thread
                if act is None:
                    loop.remove_signal_handler(number)
                else:
                    loop.add_signal_handler(number, act)

    def stop(self) -> None:
        """Let `run` end."""
        self._stop.set()

    async def _listen(self) -> Server:
        quiet = logging.getLogger("policy_accel.websockets")
        quiet.setLevel(logging.CRITICAL + 1)  # what strangers send is no error of ours
        try:
            return await serve(
                self._converse,
                self.config.host,
                self.config.port,
                origins=[None],  # web pages send one: a page in a browser beside the server is no client
                compression=None,  # or a small message could become a huge one
                process_request=self._front,
                open_timeout=OPEN_SECONDS,
                close_timeout=CLOSE_SECONDS,
                max_size=self.max_bytes,
                max_queue=1,
                server_header=None,
                logger=quiet,
            )
        except OSError as error:
            where = f"{self.config.host}:{self.config.port}"
            raise UserError(
                f"cannot listen at {where} ({one_line(error)}); choose another --host or --port."
            ) from error

    async def _close(self, server: Server) -> None:
        """Take no more clients, let those go that wait for nothing, and answer the others first."""
        server.close(close_connections=False)
        leaving = [self._leave(socket) for socket, idle in self._idle.items() if idle]
        await asyncio.gather(*leaving)
        await server.wait_closed()

    @staticmethod
    async def _leave(socket: ServerConnection) -> None:
        await socket.close(GOING_AWAY, "the server stops")

    async def _converse(self, socket: ServerConnection) -> None:
        """Answer the messages of a client, one after the other, until it leaves."""
        served, connection = self._asked(socket), Connection()
        self._idle[socket] = True
        try:
            await self._send(socket, encode(served.metadata()))
            while not self._stop.is_set():
                message = await socket.recv()
                self._idle[socket] = False
                if isinstance(message, str):
                    answer: bytes | str = "the message is text; send msgpack in a binary message."
                else:
                    answer = await self._batcher.submit(served, connection, message)
                await self._send(socket, answer)
                self._idle[socket] = True
            await self._leave(socket)
        except ConnectionClosed:
            pass
        except TimeoutError:  # it does not read
            socket.transport.abort()
        finally:
            del self._idle[socket]

    @staticmethod
    async def _send(socket: ServerConnection, answer: bytes | str) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            await socket.send(answer)

    def _front(self, socket: ServerConnection, request: Request) -> Response | None:
        """Answer a request for a page, refuse a client, or let it in."""
        path, page = _path(request), "Upgrade" not in request.headers
        if page and path in HEALTH:
            return socket.respond(HTTPStatus.OK, "ok\n")
        if not self._knows_the_token(request.headers):
            refusal = socket.respond(
                HTTPStatus.UNAUTHORIZED,
                "this server asks for a token, and the request has none or another; "
                "send the header 'Authorization: Bearer TOKEN'.\n",
            )
            refusal.headers["WWW-Authenticate"] = "Bearer"
            return refusal
        if page and path in METRICS:
            record = server_record(
                {name: served.figures for name, served in self.policies.items()}, len(self._idle), self.began
            )
            return socket.respond(HTTPStatus.OK, prometheus(record) if path == "metrics" else json.dumps(record) + "\n")
        if page:
            pages = ", ".join(f"/{name}" for name in ("health", *METRICS))
            return socket.respond(HTTPStatus.NOT_FOUND, f"no page '/{path}'; there are {pages}, and websockets.\n")
        if path and path not in self.policies:
            return socket.respond(HTTPStatus.NOT_FOUND, f"no policy '{path}'; {did_you_mean(path, self.policies)}\n")
        if len(self._idle) >= self.config.max_clients:
            text = f"the server has its {self.config.max_clients} clients; come back later, or raise --max-clients.\n"
            return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, text)
        return None

    def _asked(self, socket: ServerConnection) -> ServedPolicy:
        assert socket.request is not None
        return self.policies[_path(socket.request) or next(iter(self.policies))]

    def _knows_the_token(self, headers: Headers) -> bool:
        if self.config.token is None:
            return True
        given = headers.get_all("Authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        known = hmac.compare_digest(token.strip().encode(errors="surrogateescape"), self.config.token.encode())
        return known and scheme.lower() in ("bearer", "api-key")  # the second is what openpi's client says

    def _max_bytes(self) -> int:
        needed = max(served.window_bytes() for served in self.policies.values())
        if self.config.max_message_mb is None:
            return SPARE_BYTES + SPARE_FACTOR * needed
        if (limit := int(self.config.max_message_mb * 2**20)) < needed:
            raise UserError(
                f"--max-message-mb={self.config.max_message_mb:g} is less than the {needed / 2**20:.2g} that the "
                "observations of a request take; raise it or leave it out."
            )
        return limit


def _path(request: Request) -> str:
    return unquote(urlsplit(request.path).path).strip("/")
