"""CUDA graphs of the simulated device: operations are recorded with the memory they use; a replay runs them again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from support.simulated_cuda.nested import leaves, replaced
from support.simulated_cuda.rules import RANDOM, VIEWS
from support.simulated_cuda.tensors import SimulatedTensor
from torch.multiprocessing.reductions import StorageWeakRef


class CaptureError(RuntimeError):
    """What a CUDA graph cannot capture, or could not replay."""


@dataclass(frozen=True)
class Memory:
    """Where a tensor lies; it keeps nothing alive that the graph did not allocate itself."""

    storage: StorageWeakRef
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    where: str

    @classmethod
    def of(cls, tensor: torch.Tensor, where: str) -> Memory:
        storage = StorageWeakRef(tensor.untyped_storage())
        return cls(storage, tensor.dtype, tensor.size(), tensor.stride(), tensor.storage_offset(), where)

    def tensor(self) -> torch.Tensor:
        if self.storage.expired():
            raise CaptureError(f"a replay uses memory that was freed since the capture: {self.where}")
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)
        return torch.empty(0, dtype=self.dtype).set_(storage, self.offset, self.size, self.stride)


class SimulatedGraph:
    """torch.cuda.CUDAGraph: what runs while it captures, again at every replay."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.generators: list[torch.Generator] = []
        self.nodes: list[tuple[Any, Any, Any, Any]] = []
        self.own: list[torch.UntypedStorage] = []
        self._own_addresses: set[int] = set()
        self._changed: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    def draws_from(self, generator: torch._C.Generator) -> bool:
        return generator._cdata in {known._cdata for known in self.generators}

    def pool(self) -> tuple[int, int]:
        return (0, 0)

    def reset(self) -> None:
        self.nodes, self.own, self._own_addresses, self._changed = [], [], set(), {}

    def before(self, func: Any, args: Any, kwargs: Any) -> None:
        """Keep what an operation on inner tensors may change: a capture computes nothing."""
        if func._schema.is_mutable or "batch_norm" in func._schema.name:  # whose schema does not say so
            for tensor in leaves((args, kwargs)):
                if isinstance(tensor, torch.Tensor):
                    self.keep(tensor)

    def keep(self, tensor: torch.Tensor) -> None:
        """Keep the contents of memory from outside, to put them back when the capture ends."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own_addresses and storage._cdata not in self._changed:
            self._changed[storage._cdata] = storage, storage.clone()

    def record(self, func: Any, args: Any, kwargs: Any, out: Any, where: str) -> None:
        """Take one operation on inner tensors, which has run already."""
        name = func._schema.name.split("::")[1]
        flat = leaves((args, kwargs))
        generator = next((x for x in flat if isinstance(x, torch._C.Generator)), None)
        if name in RANDOM and generator is not None and not self.draws_from(generator):
            raise CaptureError(f"{name} draws from a generator that was not registered with the graph at {where}")
        given = {x.untyped_storage()._cdata for x in flat if isinstance(x, torch.Tensor)}
        for tensor in leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in given:
                self.own.append(tensor.untyped_storage())  # the graph's own pool keeps it
                self._own_addresses.add(tensor.untyped_storage()._cdata)
        if name in VIEWS:
            return
        held = self._holder(f"{name} at {where}")
        self.nodes.append((func, *replaced(torch.Tensor, held, (args, kwargs)), replaced(torch.Tensor, held, out)))

    def _holder(self, where: str) -> Callable[[torch.Tensor], Any]:
        def held(tensor: torch.Tensor) -> Any:
            return tensor if tensor.untyped_storage()._cdata in self._own_addresses else Memory.of(tensor, where)

        return held

    def record_copy(
        self, copy: Callable[[torch.Tensor, torch.Tensor], None], to: torch.Tensor, source: torch.Tensor, where: str
    ) -> None:
        """Take a copy between the device and pinned memory: `copy(to, source)` at every replay."""
        self.nodes.append((copy, *replaced(torch.Tensor, self._holder(where), ((to, source), {})), None))

    def end(self) -> None:
        """What the capture changed is as before; what it computed does not exist until the first replay."""
        with torch.utils._python_dispatch._disable_current_modes():
            for storage, contents in self._changed.values():
                storage.copy_(contents)
            for storage in self.own:
                storage.fill_(255)  # NaN in every floating-point type
        self._changed = {}

    def replay(self) -> None:
        device = SimulatedTensor.device_of_operations
        device.launched("graph")
        with torch.utils._python_dispatch._disable_current_modes(), torch.no_grad():
            for func, args, kwargs, out in self.nodes:
                args, kwargs, out = replaced(Memory, Memory.tensor, (args, kwargs, out))
                again = func(*args, **kwargs)
                for old, new in zip(leaves(out), leaves(again), strict=True):
                    if isinstance(old, torch.Tensor) and old.untyped_storage()._cdata != new.untyped_storage()._cdata:
                        old.copy_(new)


@contextlib.contextmanager
def capture(graph: SimulatedGraph, *_: Any, capture_error_mode: str = "global", **__: Any) -> Iterator[None]:
    """torch.cuda.graph: record instead of only running. What was drawn while capturing is drawn again by the first
    replay, as on a GPU, where a capture leaves every generator where it was."""
    device = SimulatedTensor.device_of_operations
    device.host_waits("torch.cuda.graph", "waits for the device before a capture")
    device.arrive(None)
    states = [generator.get_state() for generator in graph.generators]
    default = torch.get_rng_state()
    device.begin_capture(graph, capture_error_mode)
    try:
        yield
    finally:
        device.end_capture()
        graph.end()
        for generator, state in zip(graph.generators, states, strict=True):
            generator.set_state(state)
        torch.set_rng_state(default)
