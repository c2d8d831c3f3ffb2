"""An array may name its codecs; those that would run code from the file are refused before anything is decoded."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numcodecs
import numcodecs.pickles
import numpy as np
import pytest
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.registry import register_codec

from policy_accel.data import read_episodes
from policy_accel.data.formats.replay_buffer import ReplayStore, StoredArray
from policy_accel.data.formats.zarr_codecs import NUMCODECS
from policy_accel.errors import UserError


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.sprung,)


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


PICKLE, TEXT = {"id": "pickle", "protocol": 5}, {"id": "vlen-utf8"}
PLACES: dict[str, dict[str, Any]] = {
    "compressor": {"compressor": PICKLE},
    "filter": {"filters": [PICKLE]},
    "object codec": {"filters": [PICKLE], "dtype": "|O", "fill_value": None},
    "after text": {"filters": [TEXT, PICKLE], "dtype": "|O", "fill_value": None},
    "compressor of text": {"filters": [TEXT], "compressor": PICKLE, "dtype": "|O", "fill_value": None},
}


def springs(path: Path, sprung: Path) -> bool:
    """Whether zarr alone falls into the trap, which differs by its version."""
    with suppress(Exception):
        zarr.open_array(path, mode="r")[...]
    return sprung.exists()


@pytest.mark.parametrize("array", ["data/action", "meta/episode_ends"])
@pytest.mark.parametrize("place", list(PLACES))
def test_a_pickle_is_not_opened(
    array: str, place: str, tmp_path: Path, plain_zarr: Any, zip_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where numcodecs was told to open them, as versions without the switch always do."""
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True)
    path, sprung = plain_zarr(tmp_path / "x.zarr", compressors=None), tmp_path / "sprung"
    edit(path / array / ".zarray", lambda metadata: metadata.update({"compressor": None, **PLACES[place]}))
    for chunk in (path / array).glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(Trap(sprung)))
    for source in (path, zip_folder(path, tmp_path / "x.zip")):
        with pytest.raises(UserError, match=rf"{array} is stored with the codec 'pickle', which is not known"):
            read_episodes(source)
        with closing(ReplayStore(source)) as replay, pytest.raises(UserError, match="no code from the file"):
            StoredArray(replay, array)
    assert not sprung.exists()
    assert springs(path / array, sprung) or "text" not in place


class Foreign(BytesBytesCodec):
    """A codec that some package registered."""

    is_fixed_size = True
    decoded = 0

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Foreign:
        return cls()

    def to_dict(self) -> dict[str, Any]:
        return {"name": "foreign"}

    def compute_encoded_size(self, length: int, spec: Any) -> int:
        return length

    async def _decode_single(self, chunk: Any, spec: Any) -> Any:
        Foreign.decoded += 1
        return chunk

    async def _encode_single(self, chunk: Any, spec: Any) -> Any:
        return chunk


@pytest.mark.parametrize("sharded", [False, True])
def test_a_codec_of_zarr_3_that_is_not_known_is_not_run(sharded: bool, tmp_path: Path, plain_zarr: Any) -> None:
    register_codec("foreign", Foreign)
    options = {"shards": (8, 2)} if sharded else {}
    path = plain_zarr(tmp_path / "x.zarr", fmt=3, compressors=None, **options)

    def add(metadata: dict[str, Any]) -> None:
        codecs = metadata["codecs"]
        (codecs[0]["configuration"]["codecs"] if sharded else codecs).append({"name": "foreign"})

    edit(path / "data/action/zarr.json", add)
    with pytest.raises(UserError, match="data/action is stored with the codec 'foreign'"):
        read_episodes(path)
    assert Foreign.decoded == 0


VALUES = np.arange(20, dtype=np.float32).reshape(10, 2)


@pytest.mark.parametrize(
    "codec",
    [numcodecs.Blosc("zstd"), numcodecs.Zlib(), numcodecs.GZip(), numcodecs.BZ2(), numcodecs.LZ4(), numcodecs.LZMA()],
    ids=lambda codec: codec.codec_id,
)
def test_ordinary_codecs_are_read(codec: Any, tmp_path: Path, plain_zarr: Any) -> None:
    filters = [numcodecs.Delta("<f4"), numcodecs.CRC32()]
    path = plain_zarr(tmp_path / "x.zarr", arrays={"action": VALUES}, compressors=codec, filters=filters)
    assert np.array_equal(read_episodes(path).arrays["action"], VALUES)


def test_shards_and_wrapped_codecs_of_zarr_3_are_read(tmp_path: Path, plain_zarr: Any) -> None:
    from zarr.codecs.numcodecs import BZ2, Delta

    options = {"compressors": BZ2(), "filters": Delta(dtype="<f4"), "shards": (8, 2)}
    path = plain_zarr(tmp_path / "x.zarr", fmt=3, arrays={"action": VALUES}, **options)
    assert np.array_equal(read_episodes(path).arrays["action"], VALUES)


def test_every_codec_of_numcodecs_is_trusted_or_is_pickle() -> None:
    assert set(numcodecs.registry.codec_registry) - NUMCODECS <= {"pickle", "foreign"}


SILENT = b"\x28\xb5\x2f\xfd\0\x38" + 63 * b"\x02\0\x10\0" + b"\x03\0\x10\0"  # Zstandard's 64 * 128 KiB, not told of
BOMBS: dict[str, tuple[Any, bytes]] = {
    "zstd that does not say": (numcodecs.Zstd(), SILENT),
    "zstd after zstd": (numcodecs.Zstd(), numcodecs.Zstd().encode(b"1") + SILENT),
    "gzip after gzip": (numcodecs.GZip(), numcodecs.GZip().encode(b"1") + numcodecs.GZip().encode(bytes(8_000_000))),
    "zlib": (numcodecs.Zlib(), numcodecs.Zlib().encode(bytes(8_000_000))),
    "gzip": (numcodecs.GZip(), numcodecs.GZip().encode(bytes(8_000_000))),
    "bz2": (numcodecs.BZ2(), numcodecs.BZ2().encode(bytes(8_000_000))),
    "lzma": (numcodecs.LZMA(), numcodecs.LZMA().encode(bytes(8_000_000))),
    "zstd": (numcodecs.Zstd(), numcodecs.Zstd().encode(bytes(8_000_000))),
    "lz4": (numcodecs.LZ4(), numcodecs.LZ4().encode(bytes(8_000_000))),
    "blosc": (numcodecs.Blosc(), numcodecs.Blosc().encode(bytes(8_000_000))),
    "none": (None, bytes(8_000_000)),
}


@pytest.mark.parametrize("codec", list(BOMBS))
def test_a_chunk_that_unpacks_to_more_than_its_array_is_not_unpacked(
    codec: str, tmp_path: Path, plain_zarr: Any
) -> None:
    compressor, content = BOMBS[codec]
    path = plain_zarr(tmp_path / "x.zarr", arrays={"action": VALUES}, compressors=compressor)
    (path / "data/action/1.0").write_bytes(content)
    with pytest.raises(
        UserError, match=r"at steps 4\.\.7 is damaged \((data/action/1.0 holds \d+ bytes|.*estination buffer)"
    ):
        read_episodes(path)


class Picture(numcodecs.abc.Codec):  # type: ignore[misc]
    """A codec of a package that is not here."""

    codec_id = "imagecodecs_jpegxl"

    def encode(self, buf: Any) -> Any:
        return buf

    def decode(self, buf: Any, out: Any = None) -> Any:
        return buf


def test_picture_codecs_are_registered_where_they_are(
    tmp_path: Path, plain_zarr: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in UMI's sets, whose other keys are read without."""
    path = plain_zarr(tmp_path / "x.zarr", arrays={"action": VALUES, "camera0_rgb": VALUES}, compressors=None)
    edit(path / "data/camera0_rgb/.zarray", lambda metadata: metadata.update({"compressor": {"id": Picture.codec_id}}))
    for module in ("imagecodecs", "imagecodecs.numcodecs"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"data/camera0_rgb is stored with .* not installed; pip install imagecodecs\."):
        read_episodes(path)
    with pytest.warns(UserWarning, match=r"left out: 'camera0_rgb', since .* pip install imagecodecs\."):
        assert list(read_episodes(path, ["action"]).arrays) == ["action"]
    package = ModuleType("imagecodecs.numcodecs")
    package.register_codecs = lambda verbose: numcodecs.register_codec(Picture)  # type: ignore[attr-defined]
    for module in ("imagecodecs", "imagecodecs.numcodecs"):
        monkeypatch.setitem(sys.modules, module, package)
    monkeypatch.setattr(numcodecs.registry, "codec_registry", dict(numcodecs.registry.codec_registry))
    np.testing.assert_array_equal(read_episodes(path).arrays["camera0_rgb"], VALUES)
