"""Pickles of the CIFAR batches, read without running anything that a pickle may ask for.

A pickle can name any function of any module, and the ordinary loader calls it. Here only the four names that these
files hold are known, and they stand for inert records; even NumPy's own functions are not called.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from policy_accel.errors import UserError


class _Record:
    """Stands for an array, its class or its type: remembers what it was made of, and makes nothing."""

    def __init__(self, *made_of: Any) -> None:
        self.made_of = made_of
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _encode(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes in the old protocols."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes in another encoding than latin1")
    return text.encode("latin1")


_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _Record,
    ("numpy._core.multiarray", "_reconstruct"): _Record,
    ("numpy", "ndarray"): _Record,
    ("numpy", "dtype"): _Record,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise _Foreign(f"{module}.{name}") from None


class _Foreign(Exception):
    """The pickle names something that a batch does not hold."""


def load_batch(content: bytes, where: str) -> dict[str, Any]:
    """The dictionary of a batch: keys as str, arrays uint8, byte strings as str, lists and integers as they are.

    Args:
        content: the pickle.
        where: the file, for messages.

    Raises:
        UserError: the pickle names anything else, is damaged, or is no dictionary.
    """
    try:
        loaded = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(loaded, dict):
            raise pickle.UnpicklingError(f"it holds a {type(loaded).__name__}")
        return {_text(key): _plain(value) for key, value in loaded.items()}
    except _Foreign as error:
        raise UserError(
            f"{where}: asks for {error}, which no CIFAR batch needs, and was not loaded; "
            "get the archive from its publisher (policy-accel data fetch cifar10)."
        ) from error
    except Exception as error:  # the loader raises nearly anything on damaged bytes
        raise UserError(
            f"{where}: is not a CIFAR batch or is cut off ({error}); unpack or download the archive again."
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, list):
        return [_text(item) if isinstance(item, bytes) else item for item in value]
    if isinstance(value, _Record):
        _, shape, kind, columns_first, content = value.state
        code = _text(kind.made_of[0])
        if code not in ("u1", "B") or columns_first:
            raise pickle.UnpicklingError(f"an array of type {code}")
        return np.frombuffer(content, np.uint8).reshape(shape)
    return value


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
