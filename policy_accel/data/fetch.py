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
from policy_accel.files import explain_os_error, sync


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
    manifest_path, manifest = _read_manifest(name, manifest_dir or shipped_path("manifest"))
    if how := manifest.get("how_to_get"):
        raise UserError(f"'{name}' cannot be downloaded by a program (licence: {manifest['licence']}): {how}")
    folder = Path(destination) / manifest.get("folder", "")
    files = manifest.get("files", [manifest])
    sizes = [file["bytes"] for file in files]
    downloaded = []
    for number, file in enumerate(files):
        shown = progress if len(files) == 1 else _part_of(progress, sum(sizes[:number]), sum(sizes))
        downloaded.append(_fetch_file(file, folder, manifest_path.name, shown))
    path = folder / files[0]["file"] if len(files) == 1 else folder
    if any(downloaded):
        said = f"{path} was downloaded and agrees with every digest of {manifest_path.name}."
    else:
        said = f"{path} is there already and intact; nothing was downloaded."
    return Fetched(path, any(downloaded), said, manifest.get("kind") == "images")


def _part_of(progress: OnDownload | None, before: int, total: int) -> OnDownload | None:
    """Progress of one file shown as that of all files together."""
    return None if progress is None else lambda done, _: progress(before + done, total)


def _fetch_file(file: dict[str, Any], folder: Path, manifest_name: str, progress: OnDownload | None) -> bool:
    """Bring one file into `folder`; False when it was there, intact."""
    address = file["address"]
    path = folder / file["file"]
    part = path.with_name(path.name + ".part")
    try:
        if path.exists():
            if fault := _fault(path, file):
                raise UserError(
                    f"{path}: is there already but {fault} ({manifest_name}); "
                    "move it away and give the command again to download it."
                )
            return False
        download(address, part, progress=progress)
        if fault := _fault(part, file):
            aside = path.with_name(path.name + ".wrong")
            part.replace(aside)
            raise UserError(
                f"{address}: the download does not match {manifest_name}: it {fault}; it is kept as {aside}: "
                "delete it and give the command again; if that does not help, the file at the address has changed."
            )
        part.rename(path)
        sync(path.parent)
    except OSError as error:
        raise explain_os_error(error, path, "write") from error
    return True


def _read_manifest(name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / f"{name}.json"
    if not path.is_file():
        known = [file.stem for file in folder.glob("*.json")]
        raise UserError(f"there is no data set '{name}' to fetch; {did_you_mean(name, known)}")
    return path, json.loads(path.read_text(encoding="utf-8"))


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
    if file.get("contents"):
        return _content_fault(path, file["contents"])
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
