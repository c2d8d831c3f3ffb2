"""A value that may still be on its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class Deferred(Generic[T]):
    """A value that is computed, or waited for, when it is first asked for, in the thread that asks.

    Work that another thread has begun is deferred as its `future.result`; `then` adds what follows it.
    """

    def __init__(self, compute: Callable[[], T]) -> None:
        self._compute: Callable[[], T] | None = compute
        self._value: T

    @classmethod
    def of(cls, value: T) -> Deferred[T]:
        """A value that is there already."""
        return cls(lambda: value)

    def result(self) -> T:
        """The value; the first call computes it or waits for it, and raises what the computation raises."""
        if self._compute is not None:
            self._value = self._compute()
            self._compute = None
        return self._value

    def then(self, function: Callable[[T], U]) -> Deferred[U]:
        """`function` of the value, deferred too."""
        return Deferred(lambda: function(self.result()))
