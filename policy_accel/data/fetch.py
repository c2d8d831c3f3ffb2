"""Public data sets from their publisher's own address, checked against the manifest that ships with the package."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy_accel.data.download import OnDownload, download
from policy_accel.data.shipped import shipped_path
from policy_accel.data.zarr_store import open_replay, read_array
from policy_accel.errors import UserError, did_you_mean
from policy_accel.files import explained, sync


@dataclass(frozen=True)
class Fetched:
    """Where a data set lies now.

    Attributes:
        path: the archive, or the folder of a set of several files, ready for `read_episodes` or `read_images`.
        downloaded: False when it was there already, intact.
        message: one sentence that says so.
        images: whether it is an image set.
    """

    path: Path
    downloaded: bool
    message: str
    images: bool = False


def fetch(
    name: str, destination: Path | str, *, manifest_dir: Path | None = None, progress: OnDownload | None = None
) -> Fetched:
    """Download a public data set into a folder, or find it there intact.

    Each download goes to `<file>.part`, is resumed by the next call if it is interrupted, and gets its name only when
    every digest of the manifest agrees.

    Args:
        name: the data set, as "pusht" or "cifar10".
        destination: folder, made if it is missing; a set of several files gets a folder of its own in it.
        manifest_dir: folder of `<name>.json`; None for the manifests that ship with the package.
        progress: called with (bytes so far, bytes in total or None when nobody says), over all files of the set.

    Raises:
        UserError: unknown name; a set that its publisher does not let programs download; no connection, HTTP error;
            wrong digest (the file is kept aside); another file of that name; disk full; no permission.
    """
    manifests = manifest_dir or shipped_path("manifest")
    manifest_path = manifests / f"{name}.json"
    if not manifest_path.is_file():
        known = [file.stem for file in manifests.glob("*.json")]
        raise UserError(f"there is no data set '{name}' to fetch; {did_you_mean(name, known)}")
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    if how := manifest.get("how_to_get"):
        raise UserError(f"'{name}' cannot be downloaded by a program (licence: {manifest['licence']}): {how}")
    folder = Path(destination) / manifest.get("folder", "")
    files = manifest.get("files", [manifest])
    total, before, downloaded = None if len(files) == 1 else sum(file["bytes"] for file in files), 0, False

    def shown(done: int, of_file: int | None) -> None:
        if progress is not None:
            progress(before + done, total or of_file)

    for file in files:
        downloaded |= _fetch_file(file, folder / file["file"], manifest_path.name, shown)
        before += file["bytes"] or 0
    path = folder / files[0]["file"] if len(files) == 1 else folder
    if downloaded:
        said = f"{path} was downloaded and agrees with every digest of {manifest_path.name}."
    else:
        said = f"{path} is there already and intact; nothing was downloaded."
    return Fetched(path, downloaded, said, manifest.get("kind") == "images")


def _fetch_file(file: dict[str, Any], path: Path, manifest_name: str, progress: OnDownload) -> bool:
    """Bring one file to `path`; False when it was there, intact."""
    part, aside = path.with_name(path.name + ".part"), path.with_name(path.name + ".wrong")
    with explained(path):
        if path.exists():
            if fault := _fault(path, file):
                raise UserError(
                    f"{path}: is there already but {fault} ({manifest_name}); "
                    "move it away and give the command again to download it."
                )
            return False
        download(file["address"], part, progress=progress)
        if fault := _fault(part, file):
            part.replace(aside)
            raise UserError(
                f"{file['address']}: the download does not match {manifest_name}: it {fault}; it is kept as {aside}: "
                "delete it and give the command again; if that does not help, the file at the address has changed."
            )
        part.rename(path)
        sync(path.parent)
    return True


def _fault(path: Path, file: dict[str, Any]) -> str:
    """What distinguishes the file from what the manifest says of it, or nothing."""
    if file["bytes"] is not None and path.stat().st_size != file["bytes"]:
        return f"has {path.stat().st_size} bytes instead of {file['bytes']}"
    for kind, title in (("sha256", "SHA-256"), ("md5", "MD5")):
        if file.get(kind) is not None:
            with path.open("rb") as content:
                digest = hashlib.file_digest(content, kind).hexdigest()
            if digest != file[kind]:
                return f"has {title} {digest} instead of {file[kind]}"
    try:
        return _content_fault(path, file["contents"]) if file.get("contents") else ""
    except UserError as error:
        return f"cannot be read ({str(error).rstrip('.')})"


def _content_fault(path: Path, contents: dict[str, str]) -> str:
    with open_replay(path) as replay:
        for name, expected in contents.items():
            values = read_array(replay, name)
            digest = hashlib.sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest()
            if digest != expected:
                return f"holds another {name}: SHA-256 of its values is {digest} instead of {expected}"
    return ""
