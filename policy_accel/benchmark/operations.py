"""Operations of torch and the memory that they touch, counted while they run or on the meta device."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NO_WORK = frozenset(
    """
    empty empty_like empty_strided new_empty new_empty_strided _unsafe_view detach alias lift_fresh is_pinned
    _local_scalar_dense _record_function_enter_new _record_function_exit
    """.split()  # noqa: SIM905
)
"""Launch nothing, and are no views by their schema."""
READ_ONLY = {"_fused_adamw_": frozenset(("grads",)), "_fused_adam_": frozenset(("grads",))}
"""Marked as written by the schema, for a gradient scaler that is not used here."""

GATHERS = frozenset("index index_select gather embedding".split())  # noqa: SIM905
"""Read of their first operand as much as they write."""


def tensor_bytes(values: Any) -> int:
    """Bytes of all tensors in nested lists and dictionaries."""
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))


class Operations(TorchDispatchMode):
    """Counts, inside the block, the operations that compute, and the bytes of what they read and write.

    Every operation is taken to read its operands and to write its results, as it does where nothing is fused.

    Attributes:
        calls: of each operation, by its name in ATen.
        bytes: read and written, likewise.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        if func.is_view or name in NO_WORK:
            return result
        self.calls[name] += 1
        given = [*args, *(kwargs.get(argument.name) for argument in func._schema.arguments[len(args) :])]
        touched = 0 if func._schema.is_mutable else tensor_bytes(result)
        for argument, value in zip(func._schema.arguments, given, strict=True):
            written = argument.alias_info is not None and argument.alias_info.is_write
            once = not written or argument.name in READ_ONLY.get(name, ())
            read = result if name in GATHERS and argument is func._schema.arguments[0] else value
            touched += tensor_bytes(read) * (1 if once else 2)
        self.bytes[name] += touched
        return result
