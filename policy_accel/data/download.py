"""Data sets that ship with the package, and public ones from their publisher's own address, checked against the
manifests that ship with it. Standard library only."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from policy_accel.errors import UserError, did_you_mean
from policy_accel.files import explained, sync

OnDownload = Callable[[int, "int | None"], None]

TIMEOUT = 30.0  # seconds without a byte until the connection counts as broken
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before each new attempt after a broken connection
_BLOCK = 2**18
_PACKAGE = Path(__file__).resolve().parents[1]
_ROOTS = (_PACKAGE / "datasets", _PACKAGE.parent / "datasets")  # in a wheel, in an editable install


class Fetched(NamedTuple):
    """Where a data set lies now, ready to be read."""

    path: Path  # the archive, or the folder of several files
    downloaded: bool  # whether it was not there already, intact
    message: str  # a sentence that says so
    images: bool  # whether it is an image set


def shipped_path(*parts: str) -> Path:
    """A file or folder below the repository's `datasets`, as `shipped_path("manifest", "pusht.json")`; UserError where
    it is missing."""
    for root in _ROOTS:
        if (path := root.joinpath(*parts)).exists():
            return path
    what = f"is missing from this installation (looked in {' and '.join(map(str, _ROOTS))})"
    raise UserError(f"datasets/{'/'.join(parts)} {what}; install the package again or check it out completely.")


def fetch(
    name: str,
    destination: Path | str,
    *,
    manifest_dir: Path | None = None,
    progress: OnDownload = lambda done, total: None,
) -> Fetched:
    """Download a public data set, as "pusht" or "cifar10", into a folder, or find it there intact.

    Each download goes to `<file>.part`, is resumed by the next call if it is interrupted, and gets its name only when
    every digest of the manifest `<name>.json` agrees. `progress` is called with (bytes so far, bytes in total or None
    when nobody says), over all files of the set. UserError: unknown name; a set that its publisher does not let
    programs download; as `download`; wrong digest (the file is kept aside); another file of that name.
    """
    manifests = manifest_dir or shipped_path("manifest")
    source = manifests / f"{name}.json"
    if not source.is_file():
        known = did_you_mean(name, [file.stem for file in manifests.glob("*.json")])
        raise UserError(f"there is no data set '{name}' to fetch; {known}")
    manifest = json.loads(source.read_text(encoding="utf-8"))
    if how := manifest.get("how_to_get"):
        raise UserError(f"'{name}' cannot be downloaded by a program (licence: {manifest['licence']}): {how}")
    folder, files = Path(destination) / manifest.get("folder", ""), manifest.get("files", [manifest])
    total = sum(file["bytes"] for file in files) if len(files) > 1 else None
    before, downloaded = 0, False
    for file in files:
        path = folder / file["file"]
        part, aside = path.with_name(path.name + ".part"), path.with_name(path.name + ".wrong")
        with explained(path):
            if not (there := path.exists()):
                shown = partial(lambda before, done, of_file: progress(before + done, total or of_file), before)
                download(file["address"], part, progress=shown)
            fault = _fault(path if there else part, file)
            if fault and there:
                remedy = "move it away and give the command again to download it"
                raise UserError(f"{path}: is there already but {fault} ({source.name}); {remedy}.")
            if fault:
                part.replace(aside)
                what = f"the download does not match {source.name}: it {fault}; it is kept as {aside}"
                remedy = "delete it and give the command again; if that does not help, the file has changed there"
                raise UserError(f"{file['address']}: {what}: {remedy}.")
            if not there:
                part.rename(path)
                sync(path.parent)
        downloaded |= not there
        before += file["bytes"] or 0
    path = folder if len(files) > 1 else path
    what = f"was downloaded and agrees with every digest of {source.name}"
    said = what if downloaded else "is there already and intact; nothing was downloaded"
    return Fetched(path, downloaded, f"{path} {said}.", manifest.get("kind") == "images")


def _fault(path: Path, file: dict[str, Any]) -> str:
    """What distinguishes the file from what the manifest says of it, or nothing."""
    if file["bytes"] not in (None, size := path.stat().st_size):
        return f"has {size} bytes instead of {file['bytes']}"
    for kind, title in (("sha256", "SHA-256"), ("md5", "MD5")):
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, kind).hexdigest() if file.get(kind) else None
        if digest != file.get(kind):
            return f"has {title} {digest} instead of {file[kind]}"
    try:
        for name, expected in file.get("contents", {}).items():
            from policy_accel.data.formats.replay_buffer import ReplayStore, StoredArray  # bring zarr

            with closing(ReplayStore(path)) as store:
                values = StoredArray(store, name).whole()
            digest = hashlib.sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest()
            if digest != expected:
                return f"holds another {name}: SHA-256 of its values is {digest} instead of {expected}"
    except UserError as error:
        return f"cannot be read ({str(error).rstrip('.')})"
    return ""


def download(address: str, part: Path, *, progress: OnDownload = lambda done, total: None) -> None:
    """Bring `address` to the file `part`, going on with what is there from an earlier, interrupted call; the digest of
    the whole is for the caller to check. UserError for no connection or one that broke again and again, an HTTP error,
    a full disk, no permission."""
    for pause in (0.0, *PAUSES):
        time.sleep(pause)
        done = part.stat().st_size if part.exists() else 0
        headers = {"User-Agent": "policy-accel", "Accept-Encoding": "identity", "Range": f"bytes={done}-"}
        try:
            with urlopen(Request(address, headers=headers), timeout=TIMEOUT) as response:
                done = done if response.status == 206 else 0
                missing = int(response.headers.get("Content-Length", -1))
                total = None if missing < 0 else done + missing
                with explained(part):
                    part.parent.mkdir(parents=True, exist_ok=True)
                    if missing > (free := shutil.disk_usage(part.parent).free):
                        what = f"{missing} bytes are missing and {free} are free"
                        raise UserError(f"{part}: the disk is full: {what}; free some space.")
                    file = part.open("ab" if done else "wb")
                with file:
                    while block := response.read1(_BLOCK):
                        with explained(part):
                            file.write(block)
                            file.flush()
                        done += len(block)
                        progress(done, total)
            with explained(part):
                sync(part)
            if total is None or done >= total:
                return
            reason = "it ended early"
        except HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code == 416:  # nothing is left to send, or the file is shorter than what is here
                if error.headers.get("Content-Range", "").endswith(f"/{done}"):
                    return
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code != 429:
                remedy = "check the address in a browser, the file may have moved"
                raise UserError(f"{address}: the server answered {reason}; {remedy}.") from error
        except (HTTPException, OSError) as error:
            reason = str(getattr(error, "reason", error))
            if isinstance(error, URLError) and not pause:
                remedy = "check the network connection and give the command again"
                raise UserError(f"{address}: cannot be reached ({reason}); {remedy}.") from error
    what = f"the connection broke {len(PAUSES) + 1} times, last after {done} bytes ({reason})"
    raise UserError(f"{address}: {what}; give the same command again to go on from there.")
