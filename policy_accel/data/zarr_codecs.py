"""What the chunks of a zarr array may do: decode numbers and text, in no more memory than the array says.

numcodecs' `pickle` runs what a file says. Its newer versions refuse to, unless an environment variable says otherwise.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import zlib
from collections.abc import Iterator
from typing import Any

from numcodecs import registry
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

NUMCODECS = {
    *("adler32", "astype", "base64", "bitround", "blosc", "bz2", "categorize", "crc32", "crc32c", "delta"),
    *("fixedscaleoffset", "fletcher32", "gzip", "jenkins_lookup3", "json2", "lz4", "lzma", "msgpack2", "packbits"),
    *("pcodec", "quantize", "shuffle", "vlen-array", "vlen-bytes", "vlen-utf8", "zfpy", "zlib", "zstd"),
}
ZARR_3 = {"bytes", "blosc", "gzip", "zstd", "crc32c", "transpose", "sharding_indexed", "vlen-bytes", "vlen-utf8"}
PICTURES = "imagecodecs_"  # image formats, as in the data sets of UMI
_MOST_METADATA = 16 * 2**20
_SPARE = 2**20  # bytes of headers and check sums beyond the numbers of a chunk
_STREAMS: dict[str, Any] = {"gzip": gzip.open, "bz2": bz2.open, "lzma": lzma.open}


def codec_names(metadata: dict[str, Any], zarr_format: int) -> list[str]:
    """The codecs of an array, those of the outermost bytes last, by its .zarray or zarr.json.

    Raises:
        KeyError, TypeError, AttributeError: damaged metadata.
    """
    if zarr_format == 2:
        codecs = [*(metadata["filters"] or ()), metadata["compressor"]]
        return [codec["id"] for codec in codecs if codec is not None]
    return list(_names(metadata["codecs"]))


def _names(codecs: Any) -> Iterator[str]:
    """Names of the codecs of zarr format 3, after those inside the shards."""
    for codec in codecs:
        settings = codec.get("configuration", {})
        yield from _names([*settings.get("codecs", ()), *settings.get("index_codecs", ())])
        yield codec["name"]


def codec_problem(names: list[str], zarr_format: int) -> str:
    """Why an array with these codecs is not read, or nothing. Picture codecs are registered when they are there."""
    for name in names:
        known = NUMCODECS if zarr_format == 2 else ZARR_3
        if zarr_format == 2 and name.startswith(PICTURES):
            try:
                importlib.import_module("imagecodecs.numcodecs").register_codecs(verbose=False)
            except ImportError:
                return (
                    f"the codec '{name}' of the package imagecodecs, which is not installed; pip install imagecodecs."
                )
        elif name not in known and name.removeprefix("numcodecs.") not in (NUMCODECS if zarr_format == 3 else ()):
            return f"the codec '{name}', which is not known to run no code from the file; write it with Blosc."
        if zarr_format == 2 and name not in (registry.codec_registry | registry.entries):
            return f"the codec '{name}', which is not installed; pip install --upgrade 'numcodecs[{name}]' imagecodecs."
    return ""


class GuardedStore(WrapperStore[Store]):
    """A store of which plain files are read alone, and chunks alone that unpack to what their array says.

    Attributes:
        sizes: file -> its bytes.
        chunks: path of an array -> the bytes of its chunks, unpacked, and the codec of their outermost bytes.
    """

    def __init__(self, store: Store, sizes: dict[str, int] | None = None) -> None:
        super().__init__(store)
        self.sizes = sizes or {}
        self.chunks: dict[str, tuple[int, str]] = {}

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """See `Store`; None for what is no plain file.

        Raises:
            ValueError: it is larger, or unpacks to more, than it should, or is cut short.
        """
        if key not in self.sizes:
            return None
        metadata = key.rpartition("/")[2].startswith((".z", "zarr.json"))
        chunks = (chunk for node, chunk in self.chunks.items() if key.startswith(f"{node}/") and not metadata)
        raw, codec = next(chunks, (_MOST_METADATA, ""))
        size, most = self.sizes[key], 4 * raw + _SPARE  # some filters make numbers wider
        content = None
        if size <= most:
            content = await super().get(key, prototype, byte_range)
            size = 0 if content is None else _unpacked_size(content.to_bytes(), codec, most)
            if codec == "blosc" and content is not None and not byte_range and len(content) != _blosc_bytes(content):
                raise ValueError(f"{key} is cut short")  # which Blosc itself would read past
        if size > most:
            raise ValueError(f"{key} holds {size} bytes or more instead of {raw}")
        return content


def _blosc_bytes(content: Buffer) -> int:
    """Bytes that a chunk of Blosc says to have (its header, README_CHUNK_FORMAT)."""
    return int.from_bytes(content.to_bytes()[12:16], "little")


def _unpacked_size(content: bytes, codec: str, most: int) -> int:
    """Bytes that a chunk says to unpack to; where it does not say, that it unpacks to, counted to more than `most`."""
    match codec:
        case "blosc":
            return int.from_bytes(content[4:8], "little")
        case "lz4":
            return int.from_bytes(content[:4], "little")
        case "zstd" if len(content) > 5:  # RFC 8878, 3.1.1.1
            single, kind = content[4] >> 5 & 1, content[4] >> 6
            width = (single, 2, 4, 8)[kind]
            start = 6 - single + (0, 1, 2, 4)[content[4] & 3]
            return int.from_bytes(content[start : start + width], "little")
        case "gzip" | "bz2" | "lzma":
            with _STREAMS[codec](io.BytesIO(content)) as file:
                return _count(file.read, most)
        case "zlib":
            unpack = zlib.decompressobj()
            return _count(lambda size: unpack.decompress(unpack.unconsumed_tail or content, size), most)
    return 0


def _count(read: Any, most: int) -> int:
    size = 0
    while (size <= most) and (part := read(2**20)):
        size += len(part)
    return size
