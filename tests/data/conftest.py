"""Replay buffers written without our writer, and a local HTTP server that behaves as badly as a test asks it to."""

import os
import shutil
import tempfile
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import zarr


@pytest.fixture
def plain_zarr():
    def plain_zarr(path, *, fmt=2, ends=(4, 10), arrays=None, **kwargs):
        """A replay buffer written by zarr alone, in chunks of 4 steps."""
        root = zarr.open_group(path, mode="w", zarr_format=fmt)
        for key, values in (arrays or {"action": np.arange(20, dtype=np.float32).reshape(10, 2) + 1}).items():
            root.create_array(f"data/{key}", data=values, chunks=(4, *values.shape[1:]), **kwargs)
        if ends is not None:
            root.create_array("meta/episode_ends", data=np.array(ends, dtype=np.int64))
        return path

    return plain_zarr


@pytest.fixture
def zip_folder():
    def zip_folder(folder, target, inside=""):
        with zipfile.ZipFile(target, "w") as archive:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    archive.write(file, inside + file.relative_to(folder).as_posix())
        return target

    return zip_folder


@pytest.fixture
def unprivileged():
    """A folder, and an ordinary user to whom permissions apply."""
    import_module("policy_accel.data.formats.replay_buffer")  # Python itself may be where that user cannot read
    folder = Path(tempfile.mkdtemp())
    root = os.geteuid() == 0
    if root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o700)
    for path in folder.iterdir():
        path.chmod(0o700)
    shutil.rmtree(folder)


@dataclass
class Site:
    """What the server serves and what it was asked for."""

    content: bytes = b""
    status: int = 200
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)  # the connection of request i breaks after cuts[i] bytes of body
    requests: list[dict] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("policy_accel.data.download.PAUSES", (0.01, 0.01, 0.01, 0.01))
    served = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            served.requests.append(dict(self.headers))
            if served.status != 200:
                return self.send_error(served.status)
            size, begin = len(served.content), 0
            wanted = self.headers.get("Range")
            if wanted and served.ranges:
                begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= size > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
            self.send_header("Content-Length", str(size - begin))
            self.end_headers()
            self.wfile.write(served.content[begin:][: served.cuts.pop(0) if served.cuts else None])

        def log_message(self, *arguments):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            """A client that hangs up early is part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    served.address = f"http://127.0.0.1:{server.server_port}/some.zip"
    yield served
    server.shutdown()
    server.server_close()
    thread.join()
