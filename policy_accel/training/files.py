"""Writing files so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from policy_accel.errors import UserError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write `path` into one sentence with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = (
                f"The disk is full: {path} could not be written; free some space and start the same command again."
            )
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            message = f"No permission to write {path}; change its permissions or choose another run_dir."
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            message = f"{path} cannot be made because a file of that name is in the way; choose another run_dir."
        else:
            message = f"{path} could not be written: {error.strerror or error}."
        raise UserError(message) from error


def sync_directory(path: Path) -> None:
    """Make renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write and fsync a file; not atomic by itself."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_text(path: Path, text: str) -> None:
    """Atomically replace the file `path` by `text`.

    Raises:
        UserError: no space, no permission.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(temporary, text.encode())
            os.replace(temporary, path)
            sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def replace_json(path: Path, value: Any) -> None:
    """Atomically replace the file `path` by `value` as indented JSON."""
    replace_text(path, json.dumps(value, indent=2) + "\n")
