"""The simulated device: every operation passes through `SimulatedCuda.run`."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from support.simulated_cuda import autocast  # noqa: F401  registers the casts of autocast
from support.simulated_cuda.graphs import CaptureError, SimulatedGraph
from support.simulated_cuda.nested import leaves, replaced
from support.simulated_cuda.patches import patched
from support.simulated_cuda.rules import INDEXED, MIXED, RANDOM, SHAPED_BY_DATA, VIEWS, waits
from support.simulated_cuda.tensors import CUDA, SimulatedTensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

HERE = str(Path(__file__).parent)
CPU = torch.device("cpu")


class DeviceMismatch(RuntimeError):
    """Operands on the device and on the host, where CUDA wants them on one."""


@dataclass
class _Flying:
    """A copy to pinned memory that nothing has waited for."""

    number: int
    destination: torch.Tensor
    value: torch.Tensor


class SimulatedCuda:
    """Enter it, and `cuda` is there.

    Attributes, each by the phase that `phase` names ("setup" before the first):
        waits: what made the host wait, with the place in the code.
        shapes: operations whose result has a shape that depends on data.
        launches: operations that launch at least one kernel.
        hazards: (not by phase) copies that are read or overwritten too early.
        trace: a list to fill with (operation, numbers on the host, shapes, place) of the main thread, or None.
    """

    def __init__(self) -> None:
        self.waits: dict[str, Counter[str]] = defaultdict(Counter)
        self.shapes: dict[str, Counter[str]] = defaultdict(Counter)
        self.launches: dict[str, Counter[str]] = defaultdict(Counter)
        self.hazards: Counter[str] = Counter()
        self.trace: list[tuple[Any, ...]] | None = None
        self._capture: tuple[SimulatedGraph, str, int] | None = None
        self._phase = "setup"
        self._numbers, self._lock = itertools.count(), threading.RLock()
        self._flying: list[_Flying] = []
        self._sources: list[tuple[int, torch.Tensor, int, str]] = []

    def __enter__(self) -> SimulatedCuda:
        self._stack = contextlib.ExitStack()
        self._stack.callback(setattr, SimulatedTensor, "device_of_operations", SimulatedTensor.device_of_operations)
        SimulatedTensor.device_of_operations = self
        self._stack.enter_context(patched(self, _Mode))
        self._stack.enter_context(_Mode())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Record what happens in the block under `name`."""
        before, self._phase = self._phase, name
        try:
            yield
        finally:
            self._phase = before

    def begin_capture(self, graph: SimulatedGraph, mode: str) -> None:
        """Record the operations of this thread; `mode` says whether other threads may use the device meanwhile."""
        self._capture = graph, mode, threading.get_ident()

    def end_capture(self) -> None:
        self._capture = None

    @property
    def capturing(self) -> SimulatedGraph | None:
        """The graph that captures what this thread does."""
        if self._capture is None:
            return None
        graph, mode, thread = self._capture
        if thread == threading.get_ident():
            return graph
        if mode == "global":
            raise CaptureError(f"another thread uses the device while a graph is captured, at {self._where()}")
        return None

    # ---- copies on their way ---------------------------------------------------------------------------------------
    def now(self) -> int:
        return next(self._numbers)

    def arrive(self, until: int | None) -> None:
        """The host has waited for what was queued before `until`, or for everything."""
        with self._lock:
            flying, self._flying = self._flying, []
            for copy in flying:
                if until is None or copy.number <= until:
                    copy.destination.copy_(copy.value)
                else:
                    self._flying.append(copy)
            sources, self._sources = self._sources, []
            for number, source, version, where in sources:
                if until is not None and number > until:
                    self._sources.append((number, source, version, where))
                elif source._version != version:
                    self.hazards[f"pinned source written again while its copy was in flight: {where}"] += 1

    def host_waits(self, what: str, why: str, *, thread_ok: bool = False) -> None:
        """Record a wait; in a thread of its own some are no harm."""
        if thread_ok and threading.current_thread() is not threading.main_thread():
            return
        where = self._where()
        if self.capturing is not None:
            raise CaptureError(f"{what} ({why}) while a graph is captured, at {where}")
        self.waits[self._phase][f"{what}: {why} @ {where}"] += 1

    def launched(self, name: str) -> None:
        self.launches[self._phase][name] += 1

    def _where(self) -> str:
        """The innermost place in the project, else in whatever else is not torch."""
        frame, other = sys._getframe(1), "?"
        while frame is not None:
            name = frame.f_code.co_filename
            place = f"{frame.f_lineno} ({frame.f_code.co_name})"
            if "policy_accel/" in name and "site-packages" not in name and "/tests/" not in name:
                return f"{name.rsplit('policy_accel/', 1)[1]}:{place}"
            if other == "?" and not name.startswith(HERE) and "/torch/" not in name:
                other = f"{name}:{place}"
            frame = frame.f_back  # type: ignore[assignment]
        return other

    # ---- operations ------------------------------------------------------------------------------------------------
    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        name = func._schema.name.split("::")[1]
        flat = leaves((args, kwargs))
        there = [x for x in flat if isinstance(x, SimulatedTensor)]
        here = [x for x in flat if isinstance(x, torch.Tensor) and not isinstance(x, SimulatedTensor)]
        self._check_devices(name, func, args, there, here)
        self._check_waits(name, func, args, kwargs, there)
        self._check_generators(name, flat)
        if name == "is_pinned":
            return bool(getattr(args[0], "_pinned", False))
        device = CUDA if there else CPU
        if kwargs.get("device") is not None:
            wanted = torch.device(kwargs["device"])
            device = CUDA if wanted.type in ("cuda", "simulated") else wanted
            kwargs = {**kwargs, "device": CPU}
        if name == "_to_copy":
            return self._to_copy(func, args[0], device, kwargs)
        if name == "copy_":
            return self._copy(args[0], args[1], bool(args[2] if len(args) > 2 else kwargs.get("non_blocking", False)))
        pinned = bool(kwargs.pop("pin_memory", False))
        if device == CUDA and self.trace is not None and threading.current_thread() is threading.main_thread():
            numbers = [repr(x) for x in flat if isinstance(x, (int, float)) and not isinstance(x, bool)]
            numbers += [f"on the host: {x.item()!r}" for x in here if x.dim() == 0]
            self.trace.append((name, tuple(numbers), tuple(tuple(x.shape) for x in there + here), self._where()))
        inner_args, inner_kwargs = replaced(SimulatedTensor, lambda x: x.inner, (args, kwargs))
        if self.capturing is not None and device == CUDA:
            self.capturing.before(func, inner_args, inner_kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            out = func(*inner_args, **inner_kwargs)
        if self.capturing is not None:
            if device == CUDA:
                self.capturing.record(func, inner_args, inner_kwargs, out, self._where())
            elif pinned:
                raise CaptureError(f"pinned memory is allocated while a graph is captured, at {self._where()}")
        if device == CUDA and name not in VIEWS:
            self.launched(name)
        if pinned:
            out._pinned = True
        return self._wrapped(func, args, kwargs, inner_args, out) if device == CUDA else out

    def _wrapped(self, func: Any, args: Any, kwargs: Any, inner_args: Any, out: Any) -> Any:
        """Results as tensors of the device, with torch's rules of aliasing."""
        wrapped = replaced(torch.Tensor, SimulatedTensor, out)
        if not any(result.alias_info is not None for result in func._schema.returns):
            return wrapped
        if func._schema.is_mutable:
            if isinstance(out, torch.Tensor):
                return args[0] if inner_args and out is inner_args[0] else kwargs.get("out", wrapped)
            return wrapped
        with contextlib.suppress(Exception):
            return return_and_correct_aliasing(func, args, kwargs, wrapped)
        return wrapped

    def _check_devices(self, name: str, func: Any, args: Any, there: list[Any], here: list[torch.Tensor]) -> None:
        """Raise DeviceMismatch where eager CUDA raises; numbers on the host (no dimensions) are passed by value."""
        if not there or not here or name in MIXED:
            return
        bad = [x for x in here if x.dim() > 0]
        if name in INDEXED and not any(x is args[0] for x in bad):
            if bad:
                self.host_waits(f"aten.{name}", "indices on the host: a blocking copy each")
            bad = []
        if name.startswith("_fused"):
            bad = here
        if bad:
            raise DeviceMismatch(
                f"Expected all tensors to be on the same device: {func} got cuda:0 and cpu tensors "
                f"{[tuple(x.shape) for x in bad]} at {self._where()}"
            )

    def _check_waits(self, name: str, func: Any, args: Any, kwargs: dict[str, Any], there: list[Any]) -> None:
        if not there:
            return
        why = waits(name, func._overloadname, kwargs)
        if why is not None:
            self.host_waits(f"aten.{name}", why)
            self.arrive(None)
            if name in SHAPED_BY_DATA:
                self.shapes[self._phase][f"{name} @ {self._where()}"] += 1
        if name in INDEXED and any(_is_mask(index) for index in (args[1] if len(args) > 1 else ())):
            self.host_waits(f"aten.{name}", "boolean index: reads how many")
            if name == "index":
                self.shapes[self._phase][f"boolean index @ {self._where()}"] += 1

    def _check_generators(self, name: str, flat: list[Any]) -> None:
        """A generator of a graph that is being captured belongs to the capture: nobody else may draw from it."""
        if self._capture is None or name not in RANDOM or self.capturing is not None:
            return
        graph = self._capture[0]
        if any(isinstance(x, torch._C.Generator) and graph.draws_from(x) for x in flat):
            raise CaptureError(f"{name} in another thread draws from a generator of the capture, at {self._where()}")

    # ---- copies ----------------------------------------------------------------------------------------------------
    def _to_copy(self, func: Any, source: torch.Tensor, device: torch.device, kwargs: dict[str, Any]) -> torch.Tensor:
        non_blocking = bool(kwargs.get("non_blocking", False))
        options = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking", "pin_memory")}
        from_there = isinstance(source, SimulatedTensor)
        inner = source.inner if isinstance(source, SimulatedTensor) else source
        if not from_there and device == CUDA and non_blocking and getattr(source, "_pinned", False):
            if self.capturing is not None:
                raise CaptureError(f"a new tensor is copied from pinned memory in a capture, at {self._where()}")
            self._sent(source)
        else:
            self._crossing(source, from_there, device == CUDA, non_blocking)
        copied = func(inner, **options, device=CPU)
        if copied.untyped_storage()._cdata == inner.untyped_storage()._cdata:
            copied = copied.clone()
        if device != CUDA:
            return copied
        self.launched("_to_copy")
        if self.capturing is not None:
            self.capturing.record(func, (inner,), {**options, "device": CPU}, copied, self._where())
        return SimulatedTensor(copied)

    def _copy(self, destination: torch.Tensor, source: torch.Tensor, non_blocking: bool) -> torch.Tensor:
        to_there, from_there = isinstance(destination, SimulatedTensor), isinstance(source, SimulatedTensor)
        to = destination.inner if isinstance(destination, SimulatedTensor) else destination
        inner = source.inner if isinstance(source, SimulatedTensor) else source
        delayed = from_there and not to_there and non_blocking and getattr(destination, "_pinned", False)
        move = self._send if delayed else _move
        if to_there and non_blocking and getattr(source, "_pinned", False):
            move = self._fetch
        elif not delayed:
            self._crossing(source, from_there, to_there, non_blocking)
        if to_there:
            self.launched("copy_")
        if self.capturing is not None and (to_there or from_there):
            self.capturing.keep(to)
            _move(to, inner)
            self.capturing.record_copy(move, to, inner, f"copy_ at {self._where()}")
        else:
            move(to, inner)
        return destination

    def _send(self, destination: torch.Tensor, source: torch.Tensor) -> None:
        """Copy to pinned memory, which holds nonsense until something waits."""
        value = source.detach().to(destination.dtype).clone()
        with torch.no_grad():
            destination.untyped_storage().fill_(255) if destination.is_contiguous() else destination.zero_()
        with self._lock:
            self._flying.append(_Flying(self.now(), destination, value))

    def _fetch(self, destination: torch.Tensor, source: torch.Tensor) -> None:
        """Copy from pinned memory, which must stay as it is until something waits."""
        self._sent(source)
        _move(destination, source)

    def _sent(self, source: torch.Tensor) -> None:
        with self._lock:
            self._sources.append((self.now(), source, source._version, self._where()))

    def _crossing(self, source: torch.Tensor, from_there: bool, to_there: bool, non_blocking: bool) -> None:
        """Record a copy between host and device that makes the host wait, or is dangerous."""
        if from_there == to_there:
            return
        if from_there:
            self.host_waits("copy to the host", "pageable memory" if non_blocking else "blocking")
            if non_blocking:
                self.hazards[f"non_blocking copy to pageable host memory @ {self._where()}"] += 1
            self.arrive(None)
        else:
            self.host_waits("copy to the device", "pageable memory" if non_blocking else "blocking")

    def report(self) -> str:
        """Everything that was found, by phase."""
        lines = []
        for phase in sorted({*self.waits, *self.launches}):
            lines.append(f"[{phase}] {sum(self.launches[phase].values())} launches")
            lines += [f"    wait x{count}  {what}" for what, count in self.waits[phase].most_common()]
            lines += [f"    shape x{count}  {what}" for what, count in self.shapes[phase].most_common()]
        return "\n".join([*lines, *(f"hazard x{count}  {what}" for what, count in self.hazards.items())])


def _move(destination: torch.Tensor, source: torch.Tensor) -> None:
    with torch.no_grad():
        destination.copy_(source)


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)


class _Mode(TorchDispatchMode):
    """Sends operations that have no tensor of the device to it too: they may make one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return SimulatedTensor.device_of_operations.run(func, args, dict(kwargs or {}))
