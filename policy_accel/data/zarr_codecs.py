"""Which codecs of a zarr array are trusted: those that decode numbers and text, and run nothing that a file says.

numcodecs' `pickle` does run it. Its newer versions refuse to, unless an environment variable says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

NUMCODECS = {
    *("adler32", "astype", "base64", "bitround", "blosc", "bz2", "categorize", "crc32", "crc32c", "delta"),
    *("fixedscaleoffset", "fletcher32", "gzip", "jenkins_lookup3", "json2", "lz4", "lzma", "msgpack2", "packbits"),
    *("pcodec", "quantize", "shuffle", "vlen-array", "vlen-bytes", "vlen-utf8", "zfpy", "zlib", "zstd"),
}
ZARR_3 = {"bytes", "blosc", "gzip", "zstd", "crc32c", "transpose", "sharding_indexed", "vlen-bytes", "vlen-utf8"}
PICTURES = "imagecodecs_"  # image formats, from the package imagecodecs


def untrusted_codecs(metadata: dict[str, Any], zarr_format: int) -> list[str]:
    """Names of the codecs that are not trusted in `metadata`, the .zarray or zarr.json of an array.

    Raises:
        KeyError, TypeError, AttributeError: damaged metadata.
    """
    if zarr_format == 2:
        codecs = [*(metadata["filters"] or ()), metadata["compressor"]]
        names = [codec["id"] for codec in codecs if codec is not None]
        return [name for name in names if name not in NUMCODECS and not name.startswith(PICTURES)]
    return [name for name in _names(metadata["codecs"]) if name not in ZARR_3 and not _wraps_numcodecs(name)]


def _names(codecs: Any) -> Iterator[str]:
    """Names of the codecs of zarr format 3, and of those inside the shards."""
    for codec in codecs:
        yield codec["name"]
        settings = codec.get("configuration", {})
        yield from _names([*settings.get("codecs", ()), *settings.get("index_codecs", ())])


def _wraps_numcodecs(name: str) -> bool:
    package, _, codec = name.partition(".")
    return package == "numcodecs" and codec in NUMCODECS
