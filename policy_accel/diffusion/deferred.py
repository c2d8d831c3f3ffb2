"""A value that may still be on its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from policy_accel.diffusion.host_work import HostCall

T = TypeVar("T")
U = TypeVar("U")


class Deferred(Generic[T]):
    """A value that is computed when it is first asked for, in the thread that asks.

    Where a computation on the host comes first, `start` begins it and `fetch` waits for it; whoever only wants the
    value need not call them. After `fetch` the value is work of the device alone, which a CUDA graph can capture.
    """

    def __init__(self, compute: Callable[[], T], host: HostCall | None = None) -> None:
        self.host = host
        self._compute: Callable[[], T] | None = compute
        self._started = self._fetched = False
        self._value: T

    @classmethod
    def of(cls, value: T) -> Deferred[T]:
        """A value that is there already."""
        return cls(lambda: value)

    def start(self) -> Deferred[T]:
        """Begin what is computed on the host, in a thread of its own where it has one; returns itself.

        Once it has been fetched it begins anew, with what the device has sent since.
        """
        if self.host is not None and self._started == self._fetched:
            self._started, self._fetched = True, False
            self.host.start()
        return self

    def fetch(self) -> None:
        """Wait for what is computed on the host; raises what that raises."""
        if self.host is not None and not self._fetched:
            if not self._started:
                self.start()
            self._fetched = True
            self.host.fetch()

    def result(self) -> T:
        """The value."""
        if self._compute is not None:
            self.fetch()
            self._value = self._compute()
            self._compute = None
        return self._value

    def then(self, function: Callable[[T], U]) -> Deferred[U]:
        """`function` of the value, deferred too; what comes after takes the place of what came before."""
        before = self._compute
        assert before is not None
        return Deferred(lambda: function(before()), self.host)
