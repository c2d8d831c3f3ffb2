"""Files that appear whole or not at all, and operating system errors in one sentence."""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from policy_accel.errors import UserError

URL = re.compile(r"([\w.]+=)?(https?|ftp|s3|gs|hf):/")
"""How a URL begins, of a setting too; as a `Path` it has lost a slash."""

if TYPE_CHECKING:
    from zipfile import ZipInfo


def explain_os_error(error: OSError, path: Path | str, doing: str) -> UserError:
    """One sentence for an `OSError` that came up while `doing` ("write", "read") something to `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{path}: the disk is full, cannot {doing} it; free some space or choose another disk.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(f"{path}: no permission to {doing} it; change the permissions or choose another path.")
    if error.errno == errno.ELOOP:
        return UserError(f"{path}: is a symbolic link, which is not followed; remove it or choose another path.")
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return UserError(f"{path}: cannot {doing} it, a file stands where a folder is needed; choose another path.")
    if error.errno == errno.ENOENT and doing == "write":
        return UserError(f"{path}: cannot be made there; choose a path in a folder that you can write.")
    if error.errno == errno.ENOENT:
        if URL.match(str(path)):
            return UserError(f"{path}: a URL is not fetched; download it, and give the path of the file.")
        return UserError(f"{path}: does not exist, cannot {doing} it; check the path.")
    return UserError(f"{path}: cannot {doing} it ({error.strerror or error}); check the disk and the path.")


def temporary_sibling(path: Path) -> Path:
    """Where this process writes what shall become `path`: a hidden file or folder beside it."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


@contextmanager
def replacing(path: Path, *, new: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling to write a file or folder at; flush it to the disk and rename it to `path` at the end.

    After a crash `path` is what it was, or whole. On any error the temporary is removed. Missing parent folders are
    made.

    Args:
        path: a file to replace, or where there is nothing yet.
        new: refuse to replace anything.

    Raises:
        UserError: the disk is full, no permission; `path` is a device or a pipe; with `new`, it exists already.
    """
    temporary = temporary_sibling(path)
    try:
        if new:
            _refuse_existing(path)
            _remove_left_over(path)
        _refuse_special(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                sync(Path(folder, name))
            sync(Path(folder))
        if temporary.is_file():
            sync(temporary)
        if new:
            _refuse_existing(path)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise explain_os_error(error, path, "write") from error
    finally:
        with suppress(OSError):  # never in place of the error that led here
            remove(temporary)


def new_path(path: Path) -> AbstractContextManager[Path]:
    """`replacing`, for a file or folder that is never overwritten."""
    return replacing(path, new=True)


def zip_entry(name: str, compression: int = 0) -> ZipInfo:
    """A member of a zip, stored or with a method of `zipfile`, with a fixed date: equal data give equal bytes."""
    from zipfile import ZipInfo

    info = ZipInfo(name)
    info.external_attr, info.compress_type = 0o644 << 16, compression
    return info


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_new(path: Path) -> None:
    """Raise UserError, before any work, where `new_path` would refuse `path`: it is there, or cannot be made."""
    _refuse_existing(path)
    check_place(path)


def check_file(path: Path) -> None:
    """Raise UserError, before any work, where no file can be written or replaced at `path`."""
    with explained(path):
        if path.is_symlink():
            raise UserError(f"{path}: is a symbolic link, which is not followed; remove it or choose another path.")
        if path.is_dir():
            raise UserError(f"{path}: is a folder; give the path of a file in it.")
        _refuse_special(path)
    check_place(path.parent if path.exists() else path)


def check_place(path: Path) -> None:
    """Raise UserError unless what there is of `path`, or of the folders above it, is a folder that can be written."""
    with explained(path):
        place = path.absolute()
        above = next(folder for folder in (place, *place.parents) if folder.exists())
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "")
        if not os.access(above, os.W_OK):
            raise PermissionError(errno.EACCES, "")


def _refuse_special(path: Path) -> None:
    """/dev/null and the like, in whose place there would be a file for all programs of the machine."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path}: is a device or a pipe, which is not replaced; give the path of a file.")


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: exists already and is not overwritten; remove it or choose another path.")


def _remove_left_over(path: Path) -> None:
    """Remove what processes that were killed had written of `path`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        number = left.name.removeprefix(f".{path.name}.").removesuffix(".partial")
        if number.isdigit() and not _is_alive(int(number)):
            remove(left)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def remove(path: Path) -> None:
    """Remove a file or folder, or nothing; a symbolic link is not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def explained(path: Path, doing: str = "write") -> Iterator[None]:
    """Turn an `OSError` of the block into one sentence about `path`."""
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, path, doing) from error


def replace_text(path: Path, text: str) -> None:
    """Replace the file `path` by `text`, see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def no_link(path: str, flags: int) -> int:
    """An opener for `open` that refuses a symbolic link at `path` instead of following it."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def open_regular(path: Path | str) -> BinaryIO:
    """Open a file for reading, without waiting for ever on a named pipe.

    Raises:
        UserError: it is missing, cannot be read, or is a pipe, a socket or a device.
    """
    with explained(Path(path), "read"):
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise UserError(f"{path}: is no regular file but a pipe, a socket or a device; remove it.")
        return file


def append_text(path: Path, text: str) -> None:
    """Append `text` to the file `path`, which is made when missing.

    Raises:
        UserError: the disk is full, no permission, a symbolic link.
    """
    with explained(path), open(path, "a", opener=no_link) as file:
        file.write(text)


def check_writable(folder: Path) -> None:
    """Write 64 KiB to a file in `folder` and remove it.

    Raises:
        UserError: the disk is full, no permission, no such folder.
    """
    probe = temporary_sibling(folder / "probe")
    with explained(folder):
        try:
            probe.write_text(2**16 * " ")
            sync(probe)
        finally:
            with suppress(OSError):  # never in place of the error that led here
                probe.unlink()


def replace_json(path: Path, value: Any) -> None:
    """Replace the file `path` by `value` as indented JSON, see `replacing`."""
    replace_text(path, json.dumps(value, indent=2) + "\n")
