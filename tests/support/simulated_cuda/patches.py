"""What is replaced in torch while the simulated device is there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import safetensors.torch
import torch
import torch._dynamo  # looks at torch.cuda when it is loaded
import torch.nn.functional as F
from support.simulated_cuda.graphs import SimulatedGraph, capture
from support.simulated_cuda.streams import SimulatedEvent, SimulatedStream
from support.simulated_cuda.tensors import SimulatedGenerator, SimulatedTensor
from torch.cuda._utils import _get_device_index


@contextlib.contextmanager
def patched(device: Any, mode: Any) -> Iterator[None]:
    """torch with `device` as its only CUDA device; `mode` sends operations to it."""

    def synchronize(_: Any = None) -> None:
        device.host_waits("torch.cuda.synchronize", "waits for the device")
        device.arrive(None)

    cuda = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: _get_device_index(device),  # raises without a number, as on a GPU
        "Event": SimulatedEvent,
        "Stream": SimulatedStream,
        "current_stream": lambda device=None: SimulatedStream(),
        "stream": lambda stream: SimulatedStream(),
        "CUDAGraph": SimulatedGraph,
        "graph": capture,
        "graph_pool_handle": lambda: (0, 0),
        "is_current_stream_capturing": lambda: device.capturing is not None,
        "mem_get_info": lambda device=None: (10**11, 10**11),
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: None,
        "manual_seed_all": lambda seed: None,
        "manual_seed": lambda seed: None,
        "is_bf16_supported": lambda *_, **__: True,
        "get_device_name": lambda device=None: "simulated",
        "get_device_capability": lambda device=None: (9, 0),
        "synchronize": synchronize,
    }
    torch._C._ensureCUDADeviceGuardSet()
    with contextlib.ExitStack() as stack:
        for name, value in cuda.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        for owner, name, value in (
            (torch, "Generator", SimulatedGenerator),
            (torch, "autocast", _autocast(torch.autocast)),
            (torch.Tensor, "pin_memory", _pin_memory),
            (safetensors.torch, "save", _save(safetensors.torch.save)),
            (F, "scaled_dot_product_attention", _attention(F.scaled_dot_product_attention)),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(mock.patch.object(threading.Thread, "run", _run(threading.Thread.run, mode)))
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        future = torch.__future__
        stack.callback(
            future.set_overwrite_module_params_on_conversion, future.get_overwrite_module_params_on_conversion()
        )
        future.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        yield


def _run(real: Any, mode: Any) -> Any:
    """Threads that are started while the device is there see it too."""

    def run(thread: threading.Thread) -> None:
        with mode():
            real(thread)

    return run


def _autocast(real: Any) -> Any:
    def autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return real("simulated" if device_type == "cuda" else device_type, *args, **kwargs)

    return autocast


def _pin_memory(tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
    if isinstance(tensor, SimulatedTensor):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
    pinned = tensor.clone()
    pinned._pinned = True  # type: ignore[attr-defined]
    return pinned


def _save(real: Any) -> Any:
    """It reads the addresses of storages, which simulated tensors do not have."""
    return lambda tensors, **kwargs: real({name: tensor.cpu() for name, tensor in tensors.items()}, **kwargs)


def _attention(real: Any) -> Any:
    """Attention from operations that the simulated device has."""

    def attention(
        q: Any, k: Any, v: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, **kwargs: Any
    ) -> Any:
        if not isinstance(q, SimulatedTensor):
            return real(q, k, v, attn_mask, dropout_p, is_causal, **kwargs)
        scale = kwargs.get("scale")
        weight = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            future = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).triu(1)
            weight = weight.masked_fill(future, float("-inf"))
        elif attn_mask is not None:
            masked = attn_mask.dtype == torch.bool
            weight = weight.masked_fill(~attn_mask, float("-inf")) if masked else weight + attn_mask
        return torch.dropout(weight.softmax(-1), dropout_p, dropout_p > 0).to(v.dtype) @ v

    return attention
