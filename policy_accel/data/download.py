"""One file over HTTP: resumed where it stopped, tried again when the connection breaks. Standard library only."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from policy_accel.errors import UserError
from policy_accel.files import explain_os_error

OnDownload = Callable[[int, "int | None"], None]

TIMEOUT = 30.0  # seconds without a byte until the connection counts as broken
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before each new attempt after a broken connection
_BLOCK = 2**18


class _Broken(Exception):
    """The connection broke; another attempt may go on where this one stopped."""


def download(address: str, part: Path, *, progress: OnDownload | None = None) -> None:
    """Bring `address` to the file `part`, going on with what is there from an earlier, interrupted call.

    A file beside it (`<part>.json`) keeps what identifies the remote file (ETag or Last-Modified); when that changed,
    or when the server cannot serve ranges, the download starts again.

    Args:
        address: an http or https address.
        part: the file to fill; left as it is when the download fails, for the next call.
        progress: called with (bytes so far, bytes in total or None when the server does not say).

    Raises:
        UserError: no connection, an HTTP error, a connection that broke again and again, disk full, no permission.
    """
    for attempt, pause in enumerate((*PAUSES, None)):
        try:
            _attempt(address, part, progress, first=attempt == 0)
            _validator_file(part).unlink(missing_ok=True)
            return
        except _Broken as error:
            if pause is None:
                done = part.stat().st_size if part.exists() else 0
                raise UserError(
                    f"{address}: the connection broke {len(PAUSES) + 1} times, last after {done} bytes ({error}); "
                    "give the same command again to go on from there."
                ) from error
            time.sleep(pause)


def _attempt(address: str, part: Path, progress: OnDownload | None, *, first: bool) -> None:
    begin = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "policy-accel", "Accept-Encoding": "identity"}
    if begin:
        headers["Range"] = f"bytes={begin}-"
        if validator := _read_validator(part):
            headers["If-Range"] = validator
    try:
        response = urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and begin:
                if error.headers.get("Content-Range", "").rpartition("/")[2] == str(begin):
                    return
                part.unlink()
                raise _Broken("the server has a shorter file now") from error
            if error.code >= 500 or error.code == 429:
                raise _Broken(f"HTTP {error.code} {error.reason}") from error
            raise UserError(
                f"{address}: the server answered HTTP {error.code} {error.reason}; check the address in a browser, "
                "the file may have moved."
            ) from error
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if not first or isinstance(reason, http.client.HTTPException | ConnectionResetError):
            raise _Broken(str(reason)) from error
        raise UserError(
            f"{address}: cannot be reached ({reason}); check the network connection and give the command again."
        ) from error
    with response:
        if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
            part.unlink()
            raise _Broken(f"the server sent another part of the file than the one from byte {begin}")
        _save(response, part, begin if response.status == 206 else 0, progress)


def _save(response: http.client.HTTPResponse, part: Path, begin: int, progress: OnDownload | None) -> None:
    length = response.headers.get("Content-Length")
    total = None if length is None else begin + int(length)
    done = begin
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - begin > free:
            raise UserError(
                f"{part}: the disk is full: {total - begin} bytes are missing and {free} are free; free some space."
            )
        _write_validator(part, response)
        with part.open("ab" if begin else "wb") as file:
            while block := _read_block(response):
                file.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, total)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise explain_os_error(error, part, "write") from error
    if total is not None and done < total:
        raise _Broken(f"{total - done} bytes were missing")


def _read_block(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(str(error) or type(error).__name__) from error


def _validator_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _write_validator(part: Path, response: http.client.HTTPResponse) -> None:
    etag = response.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    _validator_file(part).write_text(json.dumps({"validator": validator}))


def _read_validator(part: Path) -> str | None:
    try:
        validator: str | None = json.loads(_validator_file(part).read_text())["validator"]
        return validator
    except (OSError, ValueError, KeyError, TypeError):
        return None
