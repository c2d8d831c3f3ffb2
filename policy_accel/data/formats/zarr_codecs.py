"""What the chunks of a zarr array may do: decode numbers and text, in no more memory than the array says.

numcodecs' `pickle` runs what a file says. Its newer versions refuse to, unless an environment variable says otherwise.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

import numcodecs
import numpy as np
from numcodecs import registry

NUMCODECS = {
    *("adler32", "astype", "base64", "bitround", "blosc", "bz2", "categorize", "crc32", "crc32c", "delta"),
    *("fixedscaleoffset", "fletcher32", "gzip", "jenkins_lookup3", "json2", "lz4", "lzma", "msgpack2", "packbits"),
    *("pcodec", "quantize", "shuffle", "vlen-array", "vlen-bytes", "vlen-utf8", "zfpy", "zlib", "zstd"),
}
_OF_ZARR = {"bytes", "transpose", "sharding_indexed"}
_STREAMS: dict[str, Any] = {"bz2": bz2.BZ2Decompressor, "lzma": lzma.LZMADecompressor}
_STREAMS |= dict.fromkeys(("gzip", "zlib"), partial(zlib.decompressobj, wbits=47))  # finds out which of them it is


def codec_names(codecs: Iterable[dict[str, Any]], key: str) -> Iterator[str]:
    """What codecs in the metadata of an array have under a key, before it what those inside of shards have."""
    for codec in codecs:
        shards = codec.get("configuration", {})
        yield from codec_names([*shards.get("codecs", ()), *shards.get("index_codecs", ())], key)
        yield codec[key].removeprefix("numcodecs.")


def codec_problem(names: list[str]) -> str:
    """Why an array with these codecs is not read, or nothing. Picture codecs are registered when they are there."""
    for name in names:
        pictures = name.startswith("imagecodecs_")  # as in the data sets of UMI
        if pictures:
            with suppress(ImportError):
                import_module("imagecodecs.numcodecs").register_codecs(verbose=False)
        elif name not in NUMCODECS | _OF_ZARR:
            return f"the codec '{name}', which is not known to run no code from the file; write it with Blosc."
        package = "imagecodecs" if pictures else f"--upgrade 'numcodecs[{name}]'"
        if name not in {*_OF_ZARR, *registry.codec_registry, *registry.entries}:
            return f"the codec '{name}', which is not installed; pip install {package}."
    return ""


def unpacked_size(content: bytes, codec: str, most: int) -> int:
    """Bytes that a chunk unpacks to, counted to some more than `most`; any exception for what is damaged or beyond."""
    size = 0
    if codec == "blosc" and len(content) != int.from_bytes(content[12:16], "little"):
        raise ValueError("it is cut short")  # Blosc itself would read past the end
    if codec in ("blosc", "lz4"):
        return int.from_bytes(content[4:8] if codec == "blosc" else content[:4], "little")
    if codec == "zstd":  # need not say to how many, and may be several
        numcodecs.Zstd().decode(content, out=np.empty(most, np.uint8))
    while codec in _STREAMS and content and size <= most:  # one may follow another, with zeros between
        stream = _STREAMS[codec]()
        size += len(stream.decompress(content, most + 1))
        content = stream.unused_data.lstrip(b"\0")
    return size
