"""An interpreter in which no thread waits long for another, and threads that a busy machine does not hold up."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from policy_accel.errors import UserError

SWITCH_SECONDS = 0.0005
"""After so long a thread of Python has to let others run. With Python's own 5 ms a loop of 20 Hz beside two busy
threads woke up to 116 ms late, with this 8 ms (two cores)."""
ACTING, PREDICTING = 20, 10
"""Real-time priorities. The thread that predicts has one too: where it is held up with the interpreter's lock in its
hands, so is the one that acts."""


@contextmanager
def prompt_threads() -> Iterator[None]:
    """Threads take turns often, and the garbage collector does not look at what is there already, which takes 50 ms and
    more beside torch."""
    switch, froze = sys.getswitchinterval(), gc.get_freeze_count() > 0
    sys.setswitchinterval(min(switch, SWITCH_SECONDS))
    if not froze:
        gc.collect()
        gc.freeze()
    try:
        yield
    finally:
        sys.setswitchinterval(switch)
        if not froze:
            gc.unfreeze()


@contextmanager
def real_time(priority: int) -> Iterator[None]:
    """This thread goes before all others of the machine that have no real-time priority.

    Raises:
        UserError: it may not.
    """
    try:
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except (AttributeError, OSError) as error:
        raise UserError(
            "real_time=true needs the right to real-time priority, which Linux gives to root, with CAP_SYS_NICE, or by "
            f"`ulimit -r {ACTING}` ({error}); get it, or drop real_time."
        ) from error
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)
