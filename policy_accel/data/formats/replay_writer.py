"""Writing Diffusion Policy's replay buffer a chunk at a time: zarr v2 or v3, folder or zip."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from policy_accel.data.formats.base import EpisodeReader
from policy_accel.data.formats.npz_writer import entry
from policy_accel.data.formats.replay_buffer import FACTS, FACTS_ENDS, OWN_ATTRIBUTE
from policy_accel.data.formats.streaming import OnProgress, pieces
from policy_accel.errors import UserError
from policy_accel.files import new_path

if TYPE_CHECKING:
    import zarr
    from zarr.core.buffer import Buffer

_CHUNK_BYTES = 2_000_000  # as Diffusion Policy's own writer


def write_replay_buffer(
    path: Path | str, reader: EpisodeReader, *, zarr_format: Literal[2, 3] = 2, progress: OnProgress | None = None
) -> None:
    """Write a replay buffer that Diffusion Policy reads; a zip when the name ends in .zip, a folder otherwise.

    Chunks of about 2 MB along time, Blosc zstd level 5 with bit shuffle; episode_ends is int64 and uncompressed. Facts
    are kept as `formats/replay_buffer.py` says. Equal episodes give equal bytes. Nothing appears at `path` before
    everything is on the disk.

    Args:
        path: the folder or file, new.
        reader: where the demonstrations come from; one chunk of every key is held in memory.
        zarr_format: 2 (as Diffusion Policy) or 3.
        progress: called with (steps so far, all steps).

    Raises:
        UserError: `path` exists already, the disk is full, no permission, a zarr format other than 2 and 3; what the
            reader raises.
    """
    if zarr_format not in (2, 3):
        raise UserError(f"zarr_format is {zarr_format}; choose 2 (as Diffusion Policy) or 3.")
    path = Path(path)
    with new_path(path) as temporary, _store(temporary, is_zip=path.name.endswith(".zip")) as put:
        _Writer(put, reader, zarr_format).write(progress)


Put = Callable[[str, bytes], None]


@contextmanager
def _store(path: Path, *, is_zip: bool) -> Iterator[Put]:
    """A function that puts a file into a new store."""
    if is_zip:
        with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
            yield lambda name, content: archive.writestr(entry(name, compressed=False), content)
        return

    def put(name: str, content: bytes) -> None:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)

    yield put


class _Writer:
    """zarr encodes into a store in memory, which is emptied onto the disk after every chunk."""

    def __init__(self, put: Put, reader: EpisodeReader, zarr_format: Literal[2, 3]) -> None:
        import zarr
        from zarr.storage import MemoryStore

        self.put, self.reader, self.zarr_format = put, reader, zarr_format
        self.files: dict[str, Buffer] = {}
        attributes = {OWN_ATTRIBUTE: reader.metadata} if reader.metadata else None
        self.root = zarr.create_group(MemoryStore(self.files), zarr_format=zarr_format, attributes=attributes)

    def write(self, progress: OnProgress | None) -> None:
        ends = self.reader.episode_ends.astype(np.int64)
        self._array("meta/episode_ends", ends.shape, ends.dtype, compressed=False)[:] = ends
        self._facts(len(ends))
        self._data(ends, progress)
        for name in sorted(self.files):
            self.put(name, self.files.pop(name).to_bytes())

    def _array(self, name: str, shape: tuple[int, ...], dtype: Any, *, compressed: bool = True) -> zarr.Array[Any]:
        import numcodecs
        from zarr.codecs import BloscCodec

        blosc_v2 = numcodecs.Blosc(cname="zstd", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE)
        blosc = blosc_v2 if self.zarr_format == 2 else BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle")
        step = int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize
        rows = max(1, min(shape[0], _CHUNK_BYTES // step)) if compressed else shape[0]
        return self.root.create_array(
            name,
            shape=shape,
            dtype=dtype,
            chunks=(rows, *shape[1:]),
            compressors=blosc if compressed else None,
            config={"write_empty_chunks": True},
        )

    def _facts(self, episodes: int) -> None:
        lengths = [len(_line(self.reader, episode)) for episode in range(episodes)]
        if all(length == len(b"{}") for length in lengths):
            return
        ends = np.cumsum(lengths).astype(np.int64)
        self._array(FACTS_ENDS, ends.shape, ends.dtype, compressed=False)[:] = ends
        filling = _Filling(self._array(FACTS, (int(ends[-1]),), np.uint8))
        for episode in range(episodes):
            filling.add(np.frombuffer(_line(self.reader, episode), np.uint8), self._store_chunks)

    def _store_chunks(self, array: zarr.Array[Any]) -> None:
        """Move the chunks of an array out of memory; the metadata stays, since zarr may look at it again."""
        for name in [name for name in self.files if name.startswith(f"{array.path}/") and not _is_metadata(name)]:
            self.put(name, self.files.pop(name).to_bytes())

    def _data(self, ends: np.ndarray, progress: OnProgress | None) -> None:
        steps = int(ends[-1])
        fillings = {
            key: _Filling(self._array(f"data/{key}", (steps, *feature.shape), feature.dtype))
            for key, feature in self.reader.features.items()
        }
        for episode, start, rows, values in pieces(self.reader, list(fillings)):
            for key, part in values.items():
                fillings[key].add(part, self._store_chunks)
            if progress is not None:
                progress(self.reader.first_row(episode) + start + rows, steps)


class _Filling:
    """An array that is filled in order, a whole chunk at a time."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self.array, self.done = array, 0
        self.chunk = np.empty(array.chunks, array.dtype)
        self.filled = 0

    def add(self, values: np.ndarray, store: Any) -> None:
        while len(values):
            taken = min(len(values), len(self.chunk) - self.filled)
            self.chunk[self.filled : self.filled + taken] = values[:taken]
            self.filled += taken
            values = values[taken:]
            if self.filled == len(self.chunk) or self.done + self.filled == self.array.shape[0]:
                self.array[self.done : self.done + self.filled] = self.chunk[: self.filled]
                self.done, self.filled = self.done + self.filled, 0
                store(self.array)


def _line(reader: EpisodeReader, episode: int) -> bytes:
    return json.dumps(reader.episode_metadata(episode)).encode()


def _is_metadata(name: str) -> bool:
    return name.rpartition("/")[2] in (".zarray", ".zattrs", ".zgroup", "zarr.json")
