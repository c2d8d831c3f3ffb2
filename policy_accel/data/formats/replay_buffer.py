"""Diffusion Policy's replay buffer: zarr v2 or v3, folder or zip, read and written a chunk at a time.

Facts about the set are the attribute `policy_accel` of the root group. Facts about the episodes, one JSON object each,
stand end to end in `meta/episode_facts` [bytes] uint8, with their cumulative ends in `meta/episode_facts_ends` [E]
int64: Diffusion Policy's ReplayBuffer loads whatever is below meta/, and compares lengths below data/ only.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numcodecs import Blosc
from zarr.abc.store import ByteRequest, Store
from zarr.codecs import BloscCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, MemoryStore, WrapperStore, ZipStore

from policy_accel.data.episodes import sound_ends
from policy_accel.data.formats.base import EpisodeReader, Feature, OnProgress, decoding, pieces
from policy_accel.data.formats.zarr_codecs import codec_names, codec_problem, unpacked_size
from policy_accel.data.tree import folder_tree
from policy_accel.errors import UserError, one_of, refusing
from policy_accel.files import explained, new_path, open_regular, zip_entry
from policy_accel.memory import check_fits
from policy_accel.parsing import from_json

_OWN, _ENDS, _FACTS, _FACTS_ENDS = "policy_accel", "meta/episode_ends", "meta/episode_facts", "meta/episode_facts_ends"
_EXPECTED = (
    "expected one zarr folder or zip with data/<key> [steps, ...] and meta/episode_ends [episodes], unpacked from "
    "other archives; also known are robomimic HDF5, LeRobot folders, NPZ with traj_lengths or episode_ends, Minari"
)
_CHUNK_BYTES = 2_000_000  # as Diffusion Policy's own writer
_MOST_METADATA = 16 * 2**20


class ReplayStore(WrapperStore[Store]):
    """The plain files of a folder or zip that has a replay buffer somewhere inside, for zarr to read; to be closed.
    UserError for a missing path, no permission, a truncated or damaged zip, no replay buffer, several of them."""

    root: str  # path of the buffer inside, "" or with a slash at its end
    arrays: dict[str, str]  # name ("data/action", "meta/episode_ends") -> file of its metadata
    expected: dict[str, tuple[int, str]]  # path of an array -> bytes that its chunks unpack to, their outermost codec

    def __init__(self, path: Path | str) -> None:
        super().__init__(ZipStore(path) if Path(path).is_file() else LocalStore(path, read_only=True))
        self.source, self.expected, self._archive = str(path), {}, ExitStack()
        self.sizes, self._content = self._files(Path(path))
        roots: dict[str, dict[str, str]] = {}
        for file in sorted(self.sizes):
            node, _, name = file.rpartition("/")
            root = re.match(r"(?s)(.*/)?(?=(data|meta)/.)", node)
            if root and name in (".zarray", "zarr.json") and self._is_array(file):
                roots.setdefault(root[0], {})[node.removeprefix(root[0])] = file
        if len(roots) != 1:
            found = ", ".join(roots or sorted(self.sizes)[:3]) or "nothing in it"
            what = "holds several replay buffers" if roots else "not a replay buffer"
            raise UserError(f"{path}: {what}: found {found}; {_EXPECTED}.")
        self.root, self.arrays = roots.popitem()

    def _files(self, path: Path) -> tuple[dict[str, int], Callable[[str], bytes]]:
        with explained(path, "read"):
            if path.is_dir():
                names = [name for name in folder_tree(path, hidden=True).names if (path / name).is_file()]
                return {name: (path / name).stat().st_size for name in names}, lambda name: (path / name).read_bytes()
            file = self._archive.enter_context(open_regular(path))
            if not (magic := file.read(4)).startswith(b"PK"):
                return {f"a file that begins with {magic!r}": 0}, lambda name: b""
            with decoding(path, f"the zip of {path.stat().st_size} bytes"):
                archive = zipfile.ZipFile(file)
            return {entry.filename: entry.file_size for entry in archive.infolist()}, archive.read

    def _is_array(self, file: str) -> bool:
        with suppress(Exception):  # damaged: opening it as an array says so
            return file.endswith(".zarray") or bool(self.json(file)["node_type"] != "group")
        return True

    def json(self, file: str) -> Any:
        """The value of a file of metadata; any exception when there is none."""
        if self.sizes[file] > _MOST_METADATA:
            raise ValueError(f"metadata of {self.sizes[file]} bytes")
        return from_json(self._content(file))

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """See `Store`; ValueError or RuntimeError when a chunk is, or unpacks to, more than its array says."""
        if key not in self.sizes:
            return None
        arrays = [] if _is_metadata(key) else [node for node in self.expected if key.startswith(f"{node}/")]
        expected, codec = self.expected[arrays[0]] if arrays else (_MOST_METADATA, "")
        size, most = self.sizes[key], 4 * expected + 2**20  # filters make numbers wider; headers and check sums
        content = await super().get(key, prototype, byte_range) if size <= most else None
        if content is not None:
            size = unpacked_size(content.to_bytes(), codec, most)
        if size > most:
            raise ValueError(f"{key} holds {size} bytes or more instead of {expected}")
        return content

    def close(self) -> None:
        """See `Store`."""
        with suppress(AttributeError):  # of a zip that zarr 3.1 did not need to open
            super().close()
        self._archive.close()


class StoredArray:
    """An array of a replay buffer, read some rows at a time; it keeps the chunk that it decoded last. UserError where
    there is none, or its metadata are damaged or ask for a codec or chunks that are not read."""

    def __init__(self, store: ReplayStore, name: str) -> None:
        if name not in store.arrays:
            raise UserError(f"{store.source}: {name} is missing; {_EXPECTED}; write it there.")
        self.source, self.name, node, file = store.source, name, store.root + name, store.arrays[name]
        self.version: Literal[2, 3] = 3 if file.endswith("zarr.json") else 2
        with decoding(self.source, file.removeprefix(store.root)):
            metadata, v3 = store.json(file), self.version == 3
            listed = metadata["codecs"] if v3 else [*(metadata["filters"] or ()), metadata["compressor"]]
            codecs = list(codec_names(filter(None, listed), "name" if v3 else "id"))
            if why := codec_problem(codecs):
                raise UserError(f"{self.source}: {name} is stored with {why}")
            self.array = zarr.open_array(store, path=node, mode="r", zarr_format=self.version)
            self.shape, self.dtype = self.array.shape, self.array.dtype
            grid = self.array.shards or self.array.chunks
            if min(grid, default=1) < 1:
                raise ValueError(f"its chunks are {list(grid)}")
            size = math.prod(grid) * max(1, self.dtype.itemsize)
            check_fits(size, f"{self.source}: a chunk of {name}")
        store.expected[node] = size, codecs[-1] if codecs else ""
        stored = sum(file.startswith(f"{node}/") and not _is_metadata(file) for file in store.sizes)
        self.chunks = math.prod(-(-length // chunk) for length, chunk in zip(self.shape, grid, strict=True))
        self.missing = max(0, self.chunks - stored)
        what = f"{name} is {list(self.shape)} {self.dtype}; store it as numbers, one row per step."
        self.problem = "" if self.shape and self.dtype.kind in "biuf" else what
        self._chunk = lru_cache(maxsize=1)(self._decoded)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """A fresh array in the byte order of this machine; UserError when a chunk is damaged."""
        size, dtype = self.array.chunks[0], self.dtype.newbyteorder("=")
        firsts = range(rows.start // size * size, rows.stop, size)
        parts = [self._chunk(first)[max(rows.start - first, 0) : rows.stop - first] for first in firsts]
        return np.concatenate([np.empty((0, *self.shape[1:]), dtype), *parts], dtype=dtype)

    def _decoded(self, first: int) -> np.ndarray:
        last = min(first + self.array.chunks[0], self.shape[0])
        with decoding(self.source, f"a chunk of {self.name} at steps {first}..{last - 1}"):
            return np.asarray(self.array[first:last])

    def whole(self) -> np.ndarray:
        """All rows; UserError when they are no numbers, or some are damaged or not stored."""
        if why := self.problem or (f"{self.name} is not stored as a whole; copy it again." if self.missing else ""):
            raise UserError(f"{self.source}: {why}")
        check_fits(self.array.nbytes, f"{self.source}: {self.name}")
        return self[0 : self.shape[0]]


class ReplayBufferReader(EpisodeReader):
    """A zarr replay buffer; UserError as `ReplayStore`, or for ends or arrays that do not fit or are not stored."""

    format = "zarr"

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        store = self._opened.enter_context(closing(ReplayStore(path)))
        stored, form = StoredArray(store, _ENDS), "folder" if Path(path).is_dir() else "zip"
        self.layout = f"zarr v{stored.version}, {form}{store.root and f', in {store.root}'}"
        with refusing(path):
            self.episode_ends = ends = sound_ends(stored.whole())
        opened: dict[str, StoredArray] = {}
        for name in sorted(name for name in store.arrays if name.startswith("data/")):
            key = name.removeprefix("data/")
            with self.noting(self.damaged, key):
                opened[key] = StoredArray(store, name)
                if opened[key].problem:
                    self.left_out[key] = opened.pop(key).problem
        self._settle({key: (stored.name, stored) for key, stored in opened.items()})
        found = self._arrays.values()
        gaps = [f"{of.missing} of {of.chunks} chunks of {of.name} are not stored" for of in found if of.missing]
        if gaps and all(2 * stored.missing > stored.chunks for stored in found):
            raise UserError(f"{path}: most of it is missing ({', '.join(gaps)}); copy it again.")
        self.remarks += [f"{gap}, and read as the fill value; copy the file again, if not on purpose." for gap in gaps]
        self.metadata, self._lines = {}, None
        with suppress(Exception):  # not there, or damaged
            facts: Any = zarr.open_group(store, path=store.root, mode="r").attrs[_OWN]
            self.metadata = dict(facts)
        if {_FACTS, _FACTS_ENDS} <= store.arrays.keys():
            with refusing(path):
                self._line_ends = sound_ends(StoredArray(store, _FACTS_ENDS).whole(), _FACTS_ENDS)
            self._lines = StoredArray(store, _FACTS)
            if len(self._line_ends) != len(ends) or self._line_ends[-1] != self._lines.array.size:
                raise UserError(f"{path}: {_FACTS_ENDS} is not that of {len(ends)} episodes; remove it and {_FACTS}.")

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """As written by us, or {}."""
        if self._lines is None:
            return {}
        with decoding(self.source, f"{_FACTS} of episode {episode}"):
            begin = self._line_ends[episode - 1] if episode else 0
            return dict(from_json(self._lines[begin : self._line_ends[episode]].tobytes()))


class _NewZip(WrapperStore[MemoryStore]):
    """An archive for zarr to write to. Chunks go into it at once; metadata, which zarr looks at again, at the end."""

    def __init__(self, path: Path) -> None:
        self.archive, self.metadata = zipfile.ZipFile(path, "w"), dict[str, Buffer]()
        super().__init__(MemoryStore(self.metadata))

    async def set(self, key: str, value: Buffer) -> None:
        if _is_metadata(key):
            await super().set(key, value)
        else:
            self.archive.writestr(zip_entry(key), value.to_bytes())

    def close(self) -> None:
        with self.archive:
            for name in sorted(self.metadata):
                self.archive.writestr(zip_entry(name), self.metadata[name].to_bytes())


class _NewArray:
    """An array that is filled in order, a chunk of some MB at a time; or with `whole` at once, and uncompressed."""

    def __init__(self, root: zarr.Group, name: str, rows: int, feature: Feature, *, whole: bool = False) -> None:
        most = max(1, _CHUNK_BYTES // (math.prod(feature.shape) * feature.dtype.itemsize))
        self.done, self.chunk = 0, np.empty((rows if whole else min(rows, most), *feature.shape), feature.dtype)
        new, v2 = BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle"), root.metadata.zarr_format == 2
        blosc: Any = Blosc(cname="zstd", clevel=5, shuffle=Blosc.BITSHUFFLE) if v2 else new
        form = {"chunks": self.chunk.shape, "compressors": None if whole else blosc, "dtype": feature.dtype}
        self.array = root.create_array(name, shape=(rows, *feature.shape), config={"write_empty_chunks": True}, **form)

    def add(self, values: np.ndarray) -> None:
        while len(values):
            filled = self.done % len(self.chunk)
            taken = min(len(values), len(self.chunk) - filled)
            self.chunk[filled : filled + taken] = values[:taken]
            self.done, values = self.done + taken, values[taken:]
            if filled + taken == len(self.chunk) or self.done == self.array.shape[0]:
                self.array[self.done - filled - taken : self.done] = self.chunk[: filled + taken]


def write_replay_buffer(
    path: Path | str, reader: EpisodeReader, *, zarr_format: Literal[2, 3] = 2, progress: OnProgress | None = None
) -> None:
    """Write a replay buffer that Diffusion Policy reads; a zip when the name ends in .zip, a folder otherwise.

    Chunks of some 2 MB along time, one of every key held in memory, Blosc zstd 5 with bit shuffle; equal episodes give
    equal bytes. See `write_episodes`."""
    one_of("zarr_format", str(zarr_format), ("2", "3"))
    ends, number = reader.episode_ends.astype(np.int64), Feature((), np.dtype(np.int64))
    attributes = {_OWN: reader.metadata} if reader.metadata else None

    def facts() -> Iterator[bytes]:  # gone through twice, since they may be larger than the memory
        return (json.dumps(reader.episode_metadata(episode)).encode() for episode in range(len(ends)))

    kind = _NewZip if str(path).endswith(".zip") else LocalStore
    with new_path(Path(path)) as temporary, closing(kind(temporary)) as store:
        root = zarr.create_group(store, zarr_format=zarr_format, attributes=attributes)
        _NewArray(root, _ENDS, len(ends), number, whole=True).add(ends)
        facts_ends = np.cumsum([len(line) for line in facts()])
        if facts_ends[-1] > len(ends) * len("{}"):
            _NewArray(root, _FACTS_ENDS, len(ends), number, whole=True).add(facts_ends)
            lines = _NewArray(root, _FACTS, int(facts_ends[-1]), Feature((), np.dtype(np.uint8)))
            for line in facts():
                lines.add(np.frombuffer(line, np.uint8))
        arrays = {key: _NewArray(root, f"data/{key}", int(ends[-1]), of) for key, of in reader.features.items()}
        for *_, values in pieces(reader, list(arrays), progress=progress):
            for key, part in values.items():
                arrays[key].add(part)


def _is_metadata(file: str) -> bool:
    return file.rpartition("/")[2].startswith((".", "zarr.json"))
