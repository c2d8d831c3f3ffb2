"""Public data sets from their publisher's own address, checked against the manifest that ships with the package."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy_accel.data.download import Progress, download
from policy_accel.data.shipped import shipped_path
from policy_accel.data.zarr_store import open_replay, read_array
from policy_accel.errors import UserError, did_you_mean
from policy_accel.files import explain_os_error, sync


@dataclass(frozen=True)
class Fetched:
    """Where a data set lies now.

    Attributes:
        path: the archive, ready for `read_episodes`.
        downloaded: False when it was there already, intact.
        message: one sentence that says so.
    """

    path: Path
    downloaded: bool
    message: str


def fetch(
    name: str, destination: Path | str, *, manifest_dir: Path | None = None, progress: Progress | None = None
) -> Fetched:
    """Download a public data set into a folder, or find it there intact.

    The download goes to `<file>.part`, is resumed by the next call if it is interrupted, and gets its name only when
    every digest of the manifest agrees.

    Args:
        name: the data set, as "pusht".
        destination: folder, made if it is missing.
        manifest_dir: folder of `<name>.json`; None for the manifests that ship with the package.
        progress: called with (bytes so far, bytes in total or None when the server does not say).

    Raises:
        UserError: unknown name; no connection, HTTP error; wrong digest (the file is kept aside); another file of that
            name; disk full; no permission.
    """
    manifest_path, manifest = _read_manifest(name, manifest_dir or shipped_path("manifest"))
    address = manifest["address"]
    path = Path(destination) / manifest["file"]
    part = path.with_name(path.name + ".part")
    try:
        if path.exists():
            if fault := _fault(path, manifest):
                raise UserError(
                    f"{path}: is there already but {fault} ({manifest_path.name}); "
                    "move it away and give the command again to download it."
                )
            return Fetched(path, False, f"{path} is there already and intact; nothing was downloaded.")
        download(address, part, progress=progress)
        if fault := _fault(part, manifest):
            aside = path.with_name(path.name + ".wrong")
            part.replace(aside)
            raise UserError(
                f"{address}: the download does not match {manifest_path.name}: it {fault}; it is kept as {aside}: "
                "delete it and give the command again; if that does not help, the file at the address has changed."
            )
        part.rename(path)
        sync(path.parent)
    except OSError as error:
        raise explain_os_error(error, path, "write") from error
    return Fetched(path, True, f"{path} was downloaded and agrees with every digest of {manifest_path.name}.")


def _read_manifest(name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / f"{name}.json"
    if not path.is_file():
        known = [file.stem for file in folder.glob("*.json")]
        raise UserError(f"there is no data set '{name}' to fetch; {did_you_mean(name, known)}")
    return path, json.loads(path.read_text(encoding="utf-8"))


def _fault(path: Path, manifest: dict[str, Any]) -> str:
    """What distinguishes the file from the manifest, or nothing."""
    if manifest["bytes"] is not None and path.stat().st_size != manifest["bytes"]:
        return f"has {path.stat().st_size} bytes instead of {manifest['bytes']}"
    if manifest["sha256"] is not None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != manifest["sha256"]:
            return f"has SHA-256 {digest} instead of {manifest['sha256']}"
    if manifest["contents"]:
        return _content_fault(path, manifest["contents"])
    return ""


def _content_fault(path: Path, contents: dict[str, str]) -> str:
    try:
        with open_replay(path) as replay:
            for name, expected in contents.items():
                values = read_array(replay, name)
                digest = hashlib.sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest()
                if digest != expected:
                    return f"holds another {name}: SHA-256 of its values is {digest} instead of {expected}"
    except UserError as error:
        return f"cannot be read ({str(error).rstrip('.')})"
    return ""
