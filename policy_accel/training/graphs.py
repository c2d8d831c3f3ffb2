"""Work of a CUDA device that is captured once and then replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch

from policy_accel.errors import UserError

T = TypeVar("T")

WARM_UP = 3
"""Calls that run as they are before the capture, so that whatever is made at a first call is there."""


class Replayed(Generic[T]):
    """A function that makes work for the device alone, out of memory that stays where it is.

    Its first calls run as they are; then it is captured in a CUDA graph, and every further call replays that: what it
    gave at the capture is where the results are. Nothing of it may depend on the call but memory and `generators`.

    Args:
        function: the work.
        generators: all that it draws from, beside torch's own.
        stream: to warm up and capture on, not the current one.
        pool: memory that graphs share which are never replayed at once.
    """

    def __init__(
        self,
        function: Callable[[], T],
        generators: Sequence[torch.Generator],
        *,
        stream: torch.cuda.Stream,
        pool: Any,
    ) -> None:
        self.function, self.generators, self.stream, self.pool = function, generators, stream, pool
        self.result: T
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> T:
        """Make the work; the result is on the device.

        Raises:
            UserError: it cannot be captured.
        """
        if self._calls < WARM_UP:
            self._calls += 1
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.result = self.function()
            torch.cuda.current_stream().wait_stream(self.stream)
            return self.result
        if self._graph is None:
            self._graph = self._captured()
        self._graph.replay()
        return self.result

    def close(self) -> None:
        """Let go of the graph, and of what it holds."""
        if self._graph is not None:
            self._graph.reset()
        self._graph = None

    def _captured(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        try:
            # Threads that read batches or choose noise use the device meanwhile, on the stream that is not captured.
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                self.result = self.function()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"Work of the device cannot be captured as a CUDA graph ({reason}); set training.capture=false, or "
                "mend what waits for the device or draws from a generator of its own."
            ) from error
        return graph
