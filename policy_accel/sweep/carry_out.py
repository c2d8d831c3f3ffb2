"""From a sweep whose configurations are checked to runs that are done."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Any

from policy_accel.sweep.folder import Sweep, open_folder
from policy_accel.sweep.prepare import Order, sweep_of
from policy_accel.sweep.screen import Screen
from policy_accel.sweep.work import launcher_of, machine_of, threads_of, work


def carry_out(order: Order, configs: dict[str, Any]) -> tuple[Sweep, bool]:
    """Train the runs of a sweep, or go on with it.

    Args:
        order: what is asked for.
        configs: of its runs, from `prepare.check`.

    Returns:
        The sweep, and whether the user stopped it.

    Raises:
        UserError: the folder has another sweep, or cannot be used; the launcher cannot start.
    """
    machine = machine_of(order.launcher, (config.training.device for config in configs.values()))
    threads = threads_of(order.launcher, machine, len(configs))
    sweep, lock = open_folder(order.folder, lambda old: sweep_of(order, configs, old, threads))
    with lock:
        print(f"Training in {sweep.folder} (launcher={order.launcher.name})", file=sys.stderr)
        with closing(launcher_of(sweep, order.launcher, machine)) as launcher, closing(Screen(sweep)) as screen:
            stopped = work(sweep, launcher, screen)
    return sweep, stopped
