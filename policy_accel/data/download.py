"""One file over HTTP: resumed where it stopped, tried again when the connection breaks. Standard library only."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from policy_accel.errors import UserError
from policy_accel.files import explained

OnDownload = Callable[[int, "int | None"], None]

TIMEOUT = 30.0  # seconds without a byte until the connection counts as broken
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before each new attempt after a broken connection
_BLOCK = 2**18


def download(address: str, part: Path, *, progress: OnDownload | None = None) -> None:
    """Bring `address` to the file `part`, going on with what is there from an earlier, interrupted call.

    Whether the whole is what it should be is for the caller to check by its digest.

    Args:
        address: an http or https address.
        part: the file to fill; left as it is when the download fails, for the next call.
        progress: called with (bytes so far, bytes in total or None when the server does not say).

    Raises:
        UserError: no connection, an HTTP error, a connection that broke again and again, disk full, no permission.
    """
    reason = ""
    for attempt in range(len(PAUSES) + 1):
        if attempt:
            time.sleep(PAUSES[attempt - 1])
        try:
            if _attempt(address, part, progress):
                return
            reason = "it ended early"
        except HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise UserError(
                    f"{address}: the server answered HTTP {error.code} {error.reason}; check the address in a browser, "
                    "the file may have moved."
                ) from error
            reason = f"HTTP {error.code} {error.reason}"
        except (URLError, HTTPException, OSError) as error:
            reason = str(getattr(error, "reason", error))
            if isinstance(error, URLError) and not attempt and not isinstance(error.reason, ConnectionResetError):
                raise UserError(
                    f"{address}: cannot be reached ({reason}); check the network connection and give the command again."
                ) from error
    done = part.stat().st_size if part.exists() else 0
    raise UserError(
        f"{address}: the connection broke {len(PAUSES) + 1} times, last after {done} bytes ({reason}); "
        "give the same command again to go on from there."
    )


def _attempt(address: str, part: Path, progress: OnDownload | None) -> bool:
    """Append what the server sends to `part`; whether that was all of it."""
    begin = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "policy-accel", "Accept-Encoding": "identity"}
    try:
        response = urlopen(
            Request(address, headers=headers | ({"Range": f"bytes={begin}-"} if begin else {})), timeout=TIMEOUT
        )
    except HTTPError as error:
        if error.code != 416:  # nothing is left to send, or the file is shorter than what is here
            raise
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(begin):
            return True
        part.unlink()
        return False
    with response:
        done = begin if response.status == 206 else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        with explained(part):
            part.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(part.parent).free
            if total is not None and total - done > free:
                raise UserError(
                    f"{part}: the disk is full: {total - done} bytes are missing and {free} are free; free some space."
                )
            file = part.open("ab" if done else "wb")
        with file:
            while block := response.read1(_BLOCK):
                with explained(part):
                    file.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, total)
            with explained(part):
                file.flush()
                os.fsync(file.fileno())
    return total is None or done >= total
