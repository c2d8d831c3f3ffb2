from __future__ import annotations

import pickle
from typing import Any

import msgpack
import numpy as np
import pytest

from policy_accel.errors import UserError
from policy_accel.robot.serving.client import array
from policy_accel.robot.serving.messages import DTYPES, MAX_PARTS, decode, encode, read_request


def described(**changes: Any) -> bytes:
    """An array of two float32 in a message, with changes."""
    part = {b"__ndarray__": True, b"data": bytes(8), b"dtype": "<f4", b"shape": [2]}
    return bytes(msgpack.packb([part | {name.encode(): value for name, value in changes.items()}]))


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_arrays_of_numbers_come_back(dtype: str) -> None:
    sent = {"nested": [{"values": np.arange(6).astype(dtype).reshape(1, 2, 3)}], "none": np.zeros((0, 3), dtype)}
    for read in (decode, lambda data: msgpack.unpackb(data, object_hook=array)):
        found = read(encode(sent))
        np.testing.assert_array_equal(found["nested"][0]["values"], sent["nested"][0]["values"])
        assert found["none"].shape == (0, 3)
        assert found["nested"][0]["values"].dtype.str == dtype


def test_keys_of_an_array_may_be_text_and_numbers_numpys() -> None:
    text = {"__ndarray__": True, "data": np.float32([1, 2]).tobytes(), "dtype": "<f4", "shape": [2]}
    number = {b"__npgeneric__": True, b"data": 7, b"dtype": "<i8"}
    found = decode(msgpack.packb({"array": text, "number": number}))
    assert found["array"].tolist() == [1.0, 2.0]
    assert found["number"] == 7
    assert read_request(msgpack.packb({"observations": [[1.0]], "seed": number})).seed == 7


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not msgpack"),
        (b"\xc1", "not msgpack"),
        (msgpack.packb({"a": 1})[:-1], "not msgpack"),
        (msgpack.packb({1: 2}), "not msgpack"),
        (b"\x91" * 5000 + b"\x01", "not msgpack"),
        (pickle.dumps(np.zeros(3)), "not msgpack"),
        (b"\xdd\xff\xff\xff\xff", "not msgpack"),
        (b"\xdc\xff\xff" + b"\x80" * 65535, f"more than {MAX_PARTS} maps and lists"),
        (msgpack.packb({b"key": 2}), "a key of a map is b'key'"),
        (described(dtype="|O"), "dtype of an array is '|O'"),
        (described(dtype="|V8"), "dtype of an array is '|V8'"),
        (described(dtype="<U2"), "dtype of an array is '<U2'"),
        (described(dtype="f4,f4"), "dtype of an array is 'f4,f4'"),
        (described(dtype=["<f4"]), "dtype of an array is of type list"),
        (described(shape=[3]), "takes 12 bytes, and its data are 8 bytes"),
        (described(shape=[2**62, 2**62]), "and its data are 8 bytes"),
        (described(shape=[-2]), "shape of an array is [-2]"),
        (described(shape=[-2, -1]), "shape of an array is [-2, -1]"),
        (described(shape=[2.0]), "shape of an array is [2.0]"),
        (described(shape=[1] * 40), "at most 8 lengths"),
        (described(shape=None), "shape of an array is None"),
        (described(data="12345678"), "its data are of type str"),
        (described(data=b"", shape=[0, 2**62, 2**62]), "not msgpack"),
        (msgpack.packb([{b"__npgeneric__": True, b"data": "7", b"dtype": "<i8"}]), "a NumPy number"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_one_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=r"\.$") as raised:
        decode(data)
    assert sentence in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ([1, 2], "of type list; send a map"),
        ({"observations": 3}, "'observations' is of type int"),
        ({"observations": [], "seed": -1}, "'seed' is -1; send a whole number from 0"),
        ({"observations": [], "seed": True}, "'seed' is of type bool"),
        ({"observations": [], "chunk": 2**64 - 1}, "'chunk' is 18446744073709551615"),
        ({"observations": [], "chunk": 1.5}, "'chunk' is 1.5"),
        ({"observations": [], "horizon": 1}, "'horizon' is of type int"),
        ({"reset": "now"}, "'reset' is of type str"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(message: Any, sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        read_request(encode(message) if isinstance(message, dict) else msgpack.packb(message))
    assert sentence in str(raised.value)


def test_an_observation_alone_is_a_request() -> None:
    """As openpi's client sends it."""
    request = read_request(encode({"state": np.zeros(5), "prompt": "push the T"}))
    assert len(request.observations) == 1
    assert request.observations[0]["prompt"] == "push the T"
    assert request.seed is request.chunk is None
