"""Runs as processes of this machine, several side by side."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from policy_accel.errors import UserError
from policy_accel.sweep.folder import Sweep
from policy_accel.sweep.job import perform
from policy_accel.sweep.launcher import Launcher, LocalConfig, note_lost

GPUS = (
    "import json, torch; n = torch.cuda.device_count(); "
    "print(json.dumps([torch.cuda.mem_get_info(i)[0] / 2**30 for i in range(n)]))"
)
"""Prints the free GB of each GPU, in a process of its own: asking takes some of it."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


def free_gpus() -> dict[str, float]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them, with their free memory in GB."""
    asked = subprocess.run([sys.executable, "-P", "-c", GPUS], capture_output=True, text=True)
    if asked.returncode:
        raise UserError(f"the GPUs cannot be counted ({(asked.stderr.strip() or 'no answer').splitlines()[-1]}).")
    free: list[float] = json.loads(asked.stdout)
    given = [name for name in os.environ.get(VISIBLE, "").split(",") if name]
    return dict(zip(given or map(str, range(len(free))), free, strict=False))


def places(config: LocalConfig, *, cores: int, threads: int, gpus: dict[str, float]) -> Sequence[str | None]:
    """The GPU of each run that is trained side by side, None where there is none.

    Args:
        config: how many, if it says so.
        cores: of this machine.
        threads: of each run.
        gpus: that the runs may use, with their free memory in GB.

    Raises:
        UserError: no GPU has room for a run.
    """
    if not gpus:
        return [None] * (config.slots or max(1, cores // threads))
    if config.slots:
        return [list(gpus)[slot % len(gpus)] for slot in range(config.slots)]
    if not config.gpu_memory:
        return list(gpus)
    room = {gpu: int(free / config.gpu_memory) for gpu, free in gpus.items()}
    if not any(room.values()):
        raise UserError(
            f"launcher.gpu_memory={config.gpu_memory:g} GB are free on no GPU (the most is {max(gpus.values()):.1f}); "
            "lower it, or end what runs there."
        )
    rounds = range(max(room.values()))  # one for each GPU, then a second, so that few runs spread out
    return [gpu for number in rounds for gpu in gpus if number < room[gpu]][: max(1, cores // threads)]


def threads_of(config: LocalConfig, *, runs: int, cores: int, gpus: dict[str, float]) -> int:
    """CPU threads of each run of a new sweep, so that those side by side have a core for each."""
    side_by_side = len(places(config, cores=cores, threads=1, gpus=gpus))
    return max(1, cores // min(side_by_side, runs))


class LocalLauncher(Launcher):
    """A thread looks after each run's process.

    Args:
        sweep: whose runs are trained.
        places: see `places`.
    """

    def __init__(self, sweep: Sweep, places: Sequence[str | None]) -> None:
        super().__init__(sweep)
        self._places: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for place in places:
            self._places.put(place)
        self._pool = ThreadPoolExecutor(len(places))
        self._futures: dict[str, Future[str]] = {}

    def start(self, names: Sequence[str]) -> None:
        """See `Launcher`."""
        self._futures = {name: self._pool.submit(self._perform, name) for name in names}

    def _perform(self, name: str) -> str:
        place = self._places.get()
        try:
            return perform(str(self.sweep.folder), name, {} if place is None else {VISIBLE: place})
        finally:
            self._places.put(place)

    def under_way(self) -> bool:
        """See `Launcher`."""
        note_lost(self.sweep, self._futures)
        return not all(future.done() for future in self._futures.values())

    def withdraw(self) -> None:
        """See `Launcher`."""
        for future in self._futures.values():
            future.cancel()

    def close(self) -> None:
        """See `Launcher`."""
        self._pool.shutdown(cancel_futures=True)
