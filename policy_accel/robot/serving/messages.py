"""The messages of the server: msgpack, with NumPy arrays as openpi's client writes them. Nothing is unpickled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from policy_accel.errors import UserError, one_line
from policy_accel.robot.serving.client import described

NUMBERS = ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8")
DTYPES = frozenset(("|b1", "|i1", "|u1", *(order + number for order in "<>" for number in NUMBERS)))
"""The types of arrays that are read, as NumPy's `dtype.str` names them."""
MAX_AXES = 8
MAX_PARTS = 20_000
"""Maps and lists in a message; each takes many times its bytes once it is read."""
MAX_INTEGER = 2**63 - 1


@dataclass(frozen=True)
class ClientRequest:
    """What a client asks.

    Attributes:
        observations: the newest ones, oldest first; without any, the metadata are asked for.
        seed: of the episode's noise; None for the connection's.
        chunk: number of the prediction in its episode; None for the one after the last.
        horizon: whether the rest of the predicted horizon is wanted too.
        reset: whether an episode begins, with the seed `seed`.
    """

    observations: list[Any]
    seed: int | None = None
    chunk: int | None = None
    horizon: bool = False
    reset: bool = False


def encode(message: dict[str, Any]) -> bytes:
    """A message of numbers, text, lists, maps and arrays."""
    return bytes(msgpack.packb(message, default=described))


def decode(data: bytes) -> Any:
    """What a message holds; arrays are views of it.

    Raises:
        UserError: it is not msgpack, or an array in it is not as it says.
    """
    parts = 0

    def counted(part: Any) -> Any:
        nonlocal parts
        parts += 1
        if parts > MAX_PARTS:
            raise UserError(f"the message has more than {MAX_PARTS} maps and lists; send arrays.")
        return part

    try:
        return msgpack.unpackb(data, object_hook=lambda part: _read(counted(part)), list_hook=counted)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise UserError(f"the message is not msgpack that this server reads ({one_line(error)}).") from error


def read_request(data: bytes) -> ClientRequest:
    """What a message asks: a map with `observations` or `reset`, or one observation alone as openpi's client sends.

    Raises:
        UserError: a message that cannot be read, or asks what makes no sense.
    """
    message = decode(data)
    if not isinstance(message, dict):
        raise UserError(f"the message is of type {type(message).__name__}; send a map with 'observations'.")
    if "reset" in message:
        return ClientRequest([], seed=_integer("reset", message["reset"]), reset=True)
    if message and "observations" not in message:
        return ClientRequest([message])
    observations = message.get("observations", [])
    if not isinstance(observations, list):
        kind = type(observations).__name__
        raise UserError(f"'observations' is of type {kind}; send a list of the newest ones, oldest first.")
    horizon = message.get("horizon", False)
    if not isinstance(horizon, bool):
        raise UserError(f"'horizon' is of type {type(horizon).__name__}; send true or false.")
    seed, chunk = (_integer(name, message[name]) if name in message else None for name in ("seed", "chunk"))
    return ClientRequest(observations, seed, chunk, horizon)


def _integer(name: str, value: Any) -> int:
    if isinstance(value, np.integer):
        value = int(value)
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        shown = value if type(value) in (int, float) else f"of type {type(value).__name__}"
        raise UserError(f"'{name}' is {shown}; send a whole number from 0 to 2**63 - 1.")
    return value


def _read(part: dict[Any, Any]) -> Any:
    """A map of a message; one that describes an array, or a NumPy number, becomes it."""
    named = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in part.items()}
    if "__ndarray__" in named:
        return _array(named)
    if "__npgeneric__" in named:
        number = named.get("data")
        if type(number) not in (bool, int, float):
            raise UserError(f"a NumPy number of a map is of type {type(number).__name__}; send a number.")
        return _dtype(named).type(number)
    for key in part:
        if not isinstance(key, str):
            raise UserError(f"a key of a map is {key!r:.40}; send text.")
    return part


def _dtype(named: dict[str, Any]) -> np.dtype[Any]:
    name = named.get("dtype")
    if not isinstance(name, str) or name not in DTYPES:
        shown = f"'{name:.40}'" if isinstance(name, str) else f"of type {type(name).__name__}"
        raise UserError(f"the dtype of an array is {shown}; send numbers or bool, as '<f4' or '|u1'.")
    return np.dtype(name)


def _array(named: dict[str, Any]) -> np.ndarray:
    dtype, shape, data = _dtype(named), named.get("shape"), named.get("data")
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_AXES
        or not all(type(length) is int and 0 <= length <= MAX_INTEGER for length in shape)
    ):
        raise UserError(f"the shape of an array is {shape!r:.60}; send a list of at most {MAX_AXES} lengths.")
    size = math.prod(shape) * dtype.itemsize
    if not isinstance(data, bytes) or len(data) != size:
        found = f"{len(data)} bytes" if isinstance(data, bytes) else f"of type {type(data).__name__}"
        raise UserError(f"an array of {dtype.str} and shape {shape} takes {size} bytes, and its data are {found}.")
    return np.ndarray(shape, dtype, data)
