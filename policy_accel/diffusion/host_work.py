"""Work of the host between two pieces of work of the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import torch
from torch import Tensor

Solve = Callable[[Sequence[Tensor]], Tensor]


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """`values`, which may lie on the host, on `device`; nothing waits."""
    if values.device == device:
        return values
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


class HostWork:
    """Tensors go to the host, one is computed from them there and goes back; only the thread that computes waits.

    On CUDA both ends are memory that stays where it is, so that graphs can hold them: `send` belongs to the graph
    before, `received` to the graph after, and `start` and `fetch` stand between their replays. One piece of work is
    under way at a time.

    Args:
        executor: runs the computation; None for the thread that fetches.
    """

    def __init__(self, executor: Executor | None = None) -> None:
        self.executor = executor
        self.received: Tensor
        """What came back, on the device."""
        self.milliseconds = 0.0
        """What the last computation took."""
        self._sent: list[Tensor] = []
        self._device = torch.device("cpu")
        self._back: Tensor | None = None
        self._result: Callable[[], Tensor] | None = None

    def send(self, tensors: Sequence[Tensor]) -> None:
        """Copy `tensors` to the host without waiting; on the CPU they are there."""
        self._device = tensors[0].device
        if self._device.type != "cuda":
            self._sent = list(tensors)
            return
        if [(x.shape, x.dtype) for x in self._sent] != [(x.shape, x.dtype) for x in tensors]:
            self._sent = [torch.empty(x.shape, dtype=x.dtype, pin_memory=True) for x in tensors]
        for pinned, tensor in zip(self._sent, tensors, strict=True):
            pinned.copy_(tensor, non_blocking=True)

    def start(self, solve: Solve) -> None:
        """Begin `solve`, which gets what was sent once it is there and gives a tensor on the host."""
        sent, event = self._sent, None
        if self._device.type == "cuda":
            event = torch.cuda.Event(blocking=True)
            event.record(torch.cuda.current_stream(self._device))

        def work() -> Tensor:
            if event is not None:
                event.synchronize()
            started = time.perf_counter()
            solution = solve(sent)
            self.milliseconds = 1e3 * (time.perf_counter() - started)
            return solution

        self._result = work if self.executor is None else self.executor.submit(work).result

    def fetch(self) -> None:
        """Wait for the solution and send it back without waiting for the device; raises what `solve` raised."""
        assert self._result is not None
        result, self._result = self._result, None
        solution = result()
        if self._device.type != "cuda":
            self.received = solution
            return
        if self._back is None or self._back.shape != solution.shape:
            self._back = torch.empty(solution.shape, dtype=solution.dtype, pin_memory=True)
            self.received = torch.empty(solution.shape, dtype=solution.dtype, device=self._device)
        # The copy before is done: the work that made this solution waited for what was queued after it.
        self._back.copy_(solution)
        self.received.copy_(self._back, non_blocking=True)


@dataclass(frozen=True)
class HostCall:
    """One computation of `work`. What `solve` reads beside what was sent does not change from update to update."""

    work: HostWork
    solve: Solve

    def start(self) -> None:
        """Begin it."""
        self.work.start(self.solve)

    def fetch(self) -> None:
        """Wait for it."""
        self.work.fetch()
