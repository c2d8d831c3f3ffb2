"""Tensors and generators that say they are on cuda:0 and keep their numbers on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

CUDA = torch.device("cuda", 0)


class _Backend(_DummyBackendModule):
    """Lets autocast run on the simulated device; there is none to fork generators of."""

    def device_count(self) -> int:
        return 0

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def is_bf16_supported(self, *_: Any) -> bool:
        return True


# PyTorch knows the device by this name; users of the tensors only ever see cuda:0.
_setup_privateuseone_for_python_backend("simulated", backend_module=_Backend())
INNER = torch.device("simulated", 0)


class SimulatedTensor(torch.Tensor):
    """A tensor that says it is on cuda:0 and keeps its numbers in `inner`, on the CPU."""

    __slots__ = ()
    __torch_function__ = torch._C._disabled_torch_function_impl
    inner: torch.Tensor
    device_of_operations: Any = None
    """The simulation that is entered; it runs every operation."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor, requires_grad: bool = False) -> SimulatedTensor:
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=INNER,
            requires_grad=requires_grad,
        )
        self.inner = inner
        return self

    @property
    def device(self) -> torch.device:
        return CUDA

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, value: SimulatedTensor) -> None:
        self.inner = value.inner

    def __repr__(self) -> str:
        return f"SimulatedTensor({list(self.shape)}, {self.dtype}, cuda:0)"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return cls.device_of_operations.run(func, args, kwargs or {})


class SimulatedGenerator(torch.Generator):
    """torch.Generator with a device of one's choice; the numbers are the CPU's."""

    def __new__(cls, device: torch.device | str = "cpu") -> SimulatedGenerator:
        self = super().__new__(cls, device="cpu")
        self.said = CUDA if torch.device(device).type == "cuda" else torch.device(device)
        return self

    def __init__(self, device: torch.device | str = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:
        return self.said
