"""The processes of one run, as torchrun starts them: each trains on its own rows of every batch.

All of them have the same seed and the same streams, and draw for the whole batch: the batch does not depend on their
number, and a checkpoint has no rank in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from policy_accel.errors import UserError
from policy_accel.launched import processes
from policy_accel.progress import Progress

T = TypeVar("T")
P = TypeVar("P")

POLL_SECONDS = 0.02
PATIENCE = timedelta(days=1)
"""How long one rank waits for another, which may be writing or scoring; one that ended is noticed at once."""


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is. Alone, everything below does nothing.

    Tensors may lie on the CPU (gloo) or on the device (NCCL there, and nothing waits).
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def own(self, rows: int) -> slice:
        """The own ones of `rows` rows, a multiple of `count`."""
        share = rows // self.count
        return slice(self.rank * share, (self.rank + 1) * share)

    def sum_(self, tensor: Tensor) -> Tensor:
        """Put the sum over the ranks, the same bits on all of them, into `tensor`, which is returned."""
        if self.count > 1:
            with noticed():
                distributed.all_reduce(tensor)
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """The rows of all ranks, [count * B, ...] of [B, ...], in their order."""
        if self.count == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        with noticed():
            distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any rank."""
        return bool(self.sum_(torch.tensor(int(flag))))

    def collect(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        with noticed():
            distributed.all_gather_object(values, value)
        return values

    def share(self, value: T) -> T:
        """The value of the first rank."""
        return self.collect(value if self.first else None)[0]  # type: ignore[return-value]

    def spread(self, parts: Sequence[P], work: Callable[[P], T]) -> Iterator[T]:
        """`work` of every part, in their order, as many at a time as there are ranks. On other ranks than the first
        nothing comes out, and the work is done while it is asked for."""
        for begin in range(0, len(parts), self.count):
            own = begin + self.rank
            done = self._to_first([work(parts[own])] if own < len(parts) else [])
            yield from (result for results in done for result in results)

    def _to_first(self, value: T) -> list[T]:
        if self.count == 1:
            return [value]
        values: list[Any] | None = [None] * self.count if self.first else None
        with noticed():
            distributed.gather_object(value, values)
        return values or []

    def together(self, work: Callable[[], T]) -> T:
        """What `work` returns, once it went well on every rank.

        Raises:
            UserError: it went wrong on one of them, which is said by all.
        """
        if self.count == 1:
            return work()
        result, wrong = None, None
        try:
            result = work()
        except UserError as error:
            wrong = error
        if self.any(wrong is not None):
            told = [str(error) for error in self.collect(wrong) if error is not None]
            raise wrong or UserError(told[0]) if self.first else Told(told[0])
        return result  # type: ignore[return-value]


ALONE = Ranks()


class Told(UserError):
    """What went wrong, on a rank that need not say it: the first one does."""

    told = True


class RankLost(Told):
    """Another rank has ended, or cannot be reached."""


@contextmanager
def noticed(*, whatever: bool = True) -> Iterator[None]:
    """Say in a sentence that another rank has ended.

    Args:
        whatever: whether every RuntimeError within means that; else those of the exchange itself.
    """
    try:
        yield
    except RuntimeError as error:
        if not (whatever or isinstance(error, distributed.DistError) or "gloo" in str(error)):
            raise
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            raise  # whoever captures says what is wrong
        reason = str(error).strip().splitlines()[0]
        raise RankLost(
            "another process of this run has ended or cannot be reached; see what it said, and start the run again "
            f"({reason})."
        ) from error


def _of_this_start(store: Store, rank: int, count: int) -> Store:
    """A part of `store` that no earlier start of the same ranks has written to.

    torchrun keeps one store over restarts, and torch would read there where the ranks of the last start listened. So
    the first rank asks for answers to a name that it has just made up, and each other one waits until its own answer,
    also a new name, is confirmed: both sides then know that the other one is alive.
    """
    if rank == 0:
        name = uuid4().hex
        store.set("name", name)
        answers = [store.get(f"{name}/{other}").decode() for other in range(1, count)]
        for answer in answers:
            store.set(answer, name)
        return PrefixStore(name, store)
    answer = uuid4().hex
    while not store.check([answer]):
        name = store.get("name").decode()
        store.set(f"{name}/{rank}", answer)
        time.sleep(POLL_SECONDS)
    return PrefixStore(store.get(answer).decode(), store)


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The ranks that torchrun started, connected while the block runs; `ALONE` in a process that it did not start."""
    if processes() == 1:
        yield ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, rank, count = next(rendezvous("env://", timeout=PATIENCE))
    distributed.init_process_group(
        backend, store=_of_this_start(store, rank, count), rank=rank, world_size=count, timeout=PATIENCE
    )
    ranks = Ranks(rank, count)
    shown, Progress.silent = Progress.silent, Progress.silent or not ranks.first
    try:
        yield ranks
    finally:
        Progress.silent = shown
    # Not after an error: to let go of NCCL is to wait for the others.
    distributed.destroy_process_group()
