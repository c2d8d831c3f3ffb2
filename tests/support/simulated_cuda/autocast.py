"""Autocast as on CUDA (aten/src/ATen/autocast_mode.h), for the operations that occur here."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from support.simulated_cuda.nested import replaced
from support.simulated_cuda.tensors import SimulatedTensor

LOW = """
    linear matmul mm addmm bmm baddbmm conv1d conv2d conv_transpose1d conv_transpose2d.input einsum
"""
FLOAT32 = "group_norm layer_norm softmax.int mse_loss exp log pow.Tensor_Scalar rsqrt sum mean"

_library = torch.library.Library("aten", "IMPL")
_rest = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
_key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)


def _register(full: str, dtype: torch.dtype | None) -> None:
    """dtype: what operands become; None for that of the autocast."""
    packet, _, overload = full.partition(".")
    operation = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def cast(x: torch.Tensor) -> torch.Tensor:
        fits = isinstance(x, SimulatedTensor) and x.is_floating_point() and x.dtype != torch.float64
        return x.to(dtype or torch.get_autocast_dtype("simulated")) if fits else x

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_key):
            return operation(*replaced(torch.Tensor, cast, args), **replaced(torch.Tensor, cast, kwargs))

    _library.impl(full, kernel, "AutocastPrivateUse1")


_rest.fallback(torch.library.fallthrough_kernel)
for _name in LOW.split():
    _register(_name, None)
for _name in FLOAT32.split():
    with contextlib.suppress(Exception):  # some releases register a few of them elsewhere
        _register(_name, torch.float32)
