"""Events and streams of the simulated device, which does its work at once: only what the host may know is delayed."""

from __future__ import annotations

from typing import Any

from support.simulated_cuda.tensors import CUDA, SimulatedTensor


def _device() -> Any:
    return SimulatedTensor.device_of_operations


class SimulatedEvent:
    def __init__(self, *_: Any, **__: Any) -> None:
        self.at = -1

    def record(self, stream: Any = None) -> None:
        self.at = _device().now()

    def synchronize(self) -> None:
        _device().host_waits("event.synchronize", "waits for an event", thread_ok=True)
        _device().arrive(self.at)

    def query(self) -> bool:
        _device().arrive(self.at)
        return True

    def wait(self, stream: Any = None) -> None:
        pass

    def elapsed_time(self, other: SimulatedEvent) -> float:
        return 1.0


class SimulatedStream:
    device = CUDA

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def wait_stream(self, other: Any) -> None:
        pass

    def wait_event(self, event: Any) -> None:
        pass

    def record_event(self, event: SimulatedEvent | None = None) -> SimulatedEvent:
        event = SimulatedEvent() if event is None else event
        event.record()
        return event

    def synchronize(self) -> None:
        _device().host_waits("stream.synchronize", "waits for a stream")
        _device().arrive(None)

    def __enter__(self) -> SimulatedStream:
        return self

    def __exit__(self, *_: object) -> None:
        pass
