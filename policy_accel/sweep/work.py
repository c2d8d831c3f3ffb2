"""Working on a sweep until its runs are done, or the user has seen enough."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch

from policy_accel.sweep import local
from policy_accel.sweep.folder import AT_ONCE, DONE, Sweep
from policy_accel.sweep.launcher import Launcher, LauncherConfig, LocalConfig, RayConfig, SlurmConfig
from policy_accel.sweep.ray_tasks import RayLauncher
from policy_accel.sweep.screen import Screen
from policy_accel.sweep.slurm import SlurmLauncher
from policy_accel.training.devices import available_cores

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_END = 10.0
"""That runs which are to end at once are waited for; one whose machine died never says that it did."""
ON_GPU = ("auto", "cuda")
"""Settings of training.device with which a run takes the GPU that it is given, if any."""


@dataclass(frozen=True)
class Machine:
    """What this machine has for a sweep.

    Attributes:
        cores: that may be used.
        on_gpu: whether the runs take GPUs where there are any.
        gpus: that the launcher `local` may use, with their free memory in GB.
    """

    cores: int
    on_gpu: bool
    gpus: dict[str, float]


def machine_of(config: LauncherConfig, devices: Iterable[str]) -> Machine:
    """This machine, for runs on these devices.

    Raises:
        UserError: its GPUs cannot be counted.
    """
    on_gpu = any(device in ON_GPU for device in devices)
    asked = on_gpu and isinstance(config, LocalConfig) and torch.cuda.is_available()
    return Machine(available_cores(), on_gpu, local.free_gpus() if asked else {})


def threads_of(config: LauncherConfig, machine: Machine, runs: int) -> int:
    """CPU threads of each run of a new sweep, where its settings do not say."""
    if isinstance(config, LocalConfig):
        return local.threads_of(config, runs=runs, cores=machine.cores, gpus=machine.gpus)
    assert isinstance(config, RayConfig | SlurmConfig)
    return config.cpus


def launcher_of(sweep: Sweep, config: LauncherConfig, machine: Machine) -> Launcher:
    """The launcher that a configuration describes.

    Raises:
        UserError: a package is missing; no cluster; no GPU has room.
    """
    if isinstance(config, RayConfig):
        return RayLauncher(sweep, config, cores=machine.cores, on_gpu=machine.on_gpu)
    if isinstance(config, SlurmConfig):
        return SlurmLauncher(sweep, config)
    assert isinstance(config, LocalConfig)
    places = local.places(config, cores=machine.cores, threads=sweep.threads, gpus=machine.gpus)
    return local.LocalLauncher(sweep, places)


def work(sweep: Sweep, launcher: Launcher, screen: Screen) -> bool:
    """Have the runs trained that are not done yet, and show how they stand.

    The first Ctrl-C (or SIGTERM) lets every run save, the second ends them at once: whoever looks after a run has
    `SECONDS_TO_END` for that, then the launcher lets go.

    Returns:
        Whether the user stopped it.
    """
    sweep.go_on()
    launcher.start([name for name in sweep.runs if sweep.job(name).state != DONE])
    asked, give_up = 0, math.inf
    try:
        with _counted_signals() as signals:
            while launcher.under_way() and time.monotonic() < give_up:
                if len(signals) > asked:
                    asked = len(signals)
                    _stop(sweep, launcher, screen, at_once=asked > 1)
                    if asked > 1:
                        give_up = min(give_up, time.monotonic() + SECONDS_TO_END)
                screen.show()
                time.sleep(SECONDS_BETWEEN_LOOKS)
        screen.show()
    except BaseException:  # nobody would look after them
        sweep.ask_to_stop()
        launcher.withdraw()
        raise
    return asked > 0


def _stop(sweep: Sweep, launcher: Launcher, screen: Screen, *, at_once: bool) -> None:
    if at_once:
        sweep.ask_to_stop(AT_ONCE)
        screen.say("Ending all runs at once; each goes on from its last checkpoint.")
        return
    sweep.ask_to_stop()
    launcher.withdraw()
    screen.say("Stopping: every run saves first. Ctrl-C again ends them at once.")


@contextmanager
def _counted_signals() -> Iterator[list[int]]:
    """The signals that asked to stop, in place of what they do otherwise."""
    seen: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
