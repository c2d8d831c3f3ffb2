"""Who trains the runs of a sweep: what all launchers have in common, and their settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from policy_accel.errors import UserError
from policy_accel.sweep.folder import Sweep


@dataclass
class LauncherConfig:
    """The settings of a launcher."""

    name: str = ""

    def check(self) -> None:
        """Raise UserError unless the settings make sense."""


@dataclass
class LocalConfig(LauncherConfig):
    """Processes of this machine."""

    name: str = "local"
    slots: int = 0
    """Runs side by side; 0 for one on each core or, where they train on GPUs, for as many as these have room for."""
    gpu_memory: float = 0.0
    """GB of a GPU that a run takes, so that several share it; 0 gives each run a GPU of its own."""

    def check(self) -> None:
        """See `LauncherConfig`."""
        at_least("launcher.slots", self.slots, 0)
        at_least("launcher.gpu_memory", self.gpu_memory, 0)
        if self.slots and self.gpu_memory:
            raise UserError(
                f"launcher.slots={self.slots} and launcher.gpu_memory={self.gpu_memory} both say how many runs share "
                "a GPU; give one of them."
            )


@dataclass
class RayConfig(LauncherConfig):
    """Tasks of Ray, on a cluster that is there or on one of this machine."""

    name: str = "ray"
    address: str | None = None
    """Of the cluster, as HOST:6379, or auto for the one that this machine belongs to; null starts one on this
    machine."""
    cpus: int = 1
    """Cores of each run, and so its threads in a new sweep."""
    gpus: float | None = None
    """GPUs of each run, such as 0.25 for four on one; null for one where the cluster has any and the run wants it."""
    retries: int = 3
    """How often a run is started again, and goes on, after its node or its worker was lost."""

    def check(self) -> None:
        """See `LauncherConfig`."""
        at_least("launcher.cpus", self.cpus, 1)
        at_least("launcher.gpus", self.gpus or 0, 0)
        at_least("launcher.retries", self.retries, 0)


@dataclass
class SlurmConfig(LauncherConfig):
    """Jobs of SLURM, handed in through submitit."""

    name: str = "slurm"
    partition: str | None = None
    timeout: int = 1440
    """Minutes of a job; a run that needs more saves in time, and its job is queued again."""
    requeues: int = 100
    """How often that may be."""
    cpus: int = 1
    """Cores of each run, and so its threads in a new sweep."""
    gpus: int = 0
    """GPUs of each run."""
    memory: float | None = None
    """GB of each run."""
    slots: int = 0
    """Runs side by side; 0 for as many as SLURM lets."""
    options: dict[str, Any] = field(default_factory=dict)
    """More options of sbatch, as {qos: high, account: mine}."""
    cluster: str = "slurm"
    """slurm, or local: the same on this machine, without SLURM, to try it out."""

    def check(self) -> None:
        """See `LauncherConfig`."""
        for name, least in (("timeout", 1), ("requeues", 0), ("cpus", 1), ("gpus", 0), ("slots", 0)):
            at_least(f"launcher.{name}", getattr(self, name), least)
        if self.cluster not in ("slurm", "local"):
            raise UserError(f"launcher.cluster '{self.cluster}' is unknown; known are: local, slurm.")


LAUNCHERS: dict[str, type[LauncherConfig]] = {"local": LocalConfig, "ray": RayConfig, "slurm": SlurmConfig}


def at_least(name: str, value: float, least: float) -> None:
    """Raise UserError when a number is smaller."""
    if value < least:
        raise UserError(f"{name}={value:g} must be at least {least:g}.")


class Launcher(ABC):
    """Has `job.perform` called for runs of a sweep, each in its place.

    Args:
        sweep: whose runs are trained.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep

    @abstractmethod
    def start(self, names: Sequence[str]) -> None:
        """Take these runs on, in this order; returns at once.

        Raises:
            UserError: nothing can be started.
        """

    @abstractmethod
    def under_way(self) -> bool:
        """Whether any of them has not ended. One that was lost without a word is recorded as failed."""

    @abstractmethod
    def withdraw(self) -> None:
        """Give up those that nobody trains; the others see the wish to stop themselves."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything."""


def note_lost(sweep: Sweep, ended: Mapping[str, Future[Any]]) -> None:
    """Record the runs whose work ended with an error of its own as failed."""
    for name, future in ended.items():
        if future.done() and not future.cancelled() and (error := future.exception()) is not None:
            with suppress(UserError):  # the disk is full, perhaps
                sweep.fail(name, f"{error}")
