"""Diffusion Policy's replay buffer: data/<key> [N, ...] and meta/episode_ends [E], in zarr v2 or v3, folder or zip."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from policy_accel.data.episodes import Episodes
from policy_accel.data.zarr_store import EXPECTED, missing_chunks, open_replay, read_array
from policy_accel.errors import UserError, did_you_mean
from policy_accel.files import new_path

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer

_CHUNK_BYTES = 2_000_000


def read_zarr(path: Path | str, keys: Sequence[str] | None = None) -> Episodes:
    """Read a replay buffer into memory.

    Args:
        path: a zarr v2 or v3 store, as a folder or a zip; the store may lie in a folder inside.
        keys: the keys to read; None for all.

    Raises:
        UserError: the path is missing, unreadable, truncated, damaged or not a replay buffer; an unknown key; any
            fault that `Episodes` finds.
    """
    with open_replay(path) as replay:
        for key in keys or ():
            if key not in replay.keys:
                raise UserError(f"{path}: has no key '{key}' below data/; {did_you_mean(key, replay.keys)}")
        if "meta/episode_ends" not in replay.arrays:
            raise UserError(
                f"{path}: meta/episode_ends is missing, so the episodes cannot be told apart; {EXPECTED}; "
                "write the cumulative ends there."
            )
        names = [f"data/{key}" for key in (replay.keys if keys is None else keys)]
        values = {name: read_array(replay, name) for name in ["meta/episode_ends", *names]}
        for name in values:
            missing, total = missing_chunks(replay, name)
            if missing:
                warnings.warn(
                    f"{path}: {missing} of {total} chunks of {name} are not stored and read as the fill value; "
                    "if that is not on purpose, copy the file again.",
                    stacklevel=3,
                )
    ends = values.pop("meta/episode_ends")
    return Episodes({name.removeprefix("data/"): array for name, array in values.items()}, ends, str(path))


def write_zarr(path: Path | str, episodes: Episodes, *, zarr_format: Literal[2, 3] = 2) -> None:
    """Write a replay buffer that Diffusion Policy reads; a zip when the name ends in .zip, a folder otherwise.

    Chunks of about 2 MB along time, Blosc zstd level 5 with bit shuffle; episode_ends is int64 and uncompressed.
    Equal episodes give equal bytes. Nothing appears at `path` before everything is on the disk.

    Raises:
        UserError: `path` exists already, the disk is full, no permission, or a zarr format other than 2 and 3.
    """
    if zarr_format not in (2, 3):
        raise UserError(f"zarr_format is {zarr_format}; choose 2 (as Diffusion Policy) or 3.")
    path = Path(path)
    with new_path(path) as temporary:
        files = _encode(episodes, zarr_format)
        if path.name.endswith(".zip"):
            with temporary.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
                for name, content in files.items():
                    entry = zipfile.ZipInfo(name)
                    entry.external_attr = 0o644 << 16
                    archive.writestr(entry, content)
        else:
            for name, content in files.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).write_bytes(content)


def _encode(episodes: Episodes, zarr_format: Literal[2, 3]) -> dict[str, bytes]:
    """The files of the store, name -> content: compressed in memory, so that a full disk meets one plain writer."""
    import numcodecs
    import zarr
    from zarr.codecs import BloscCodec
    from zarr.storage import MemoryStore

    blosc_v2 = numcodecs.Blosc(cname="zstd", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE)
    blosc = blosc_v2 if zarr_format == 2 else BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle")
    files: dict[str, Buffer] = {}
    root = zarr.create_group(MemoryStore(files), zarr_format=zarr_format)
    for key, values in episodes.arrays.items():
        rows = min(len(values), max(1, _CHUNK_BYTES // (values.nbytes // len(values))))
        root.create_array(
            f"data/{key}",
            data=np.ascontiguousarray(values),
            chunks=(rows, *values.shape[1:]),
            compressors=blosc,
            config={"write_empty_chunks": True},
        )
    root.create_array("meta/episode_ends", data=episodes.episode_ends, compressors=None)
    return {name: buffer.to_bytes() for name, buffer in sorted(files.items())}
