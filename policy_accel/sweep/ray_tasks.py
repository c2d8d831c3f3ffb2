"""Runs as tasks of Ray: one task a run, started again where its worker or its node was lost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from policy_accel.errors import UserError
from policy_accel.extras import to_install
from policy_accel.sweep.folder import RUNNING, Sweep
from policy_accel.sweep.job import perform
from policy_accel.sweep.launcher import Launcher, RayConfig

OBJECT_STORE_BYTES = 100 * 2**20
"""Of a cluster that is started here: all that passes through it is how a run ended."""
START_ATTEMPTS = 3
"""A cluster on a busy machine now and then is not there in time."""


def import_ray() -> Any:
    """The package.

    Raises:
        UserError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a task without GPUs keeps what it was given
    try:
        import ray
    except ImportError as error:
        raise UserError(f"launcher=ray needs the package ray; {to_install('ray')}") from error
    return ray


class RayLauncher(Launcher):
    """Connects to the cluster, or starts one.

    Args:
        sweep: whose runs are trained, in a folder that all nodes see under the same path.
        config: of the launcher.
        cores: of a cluster that is started here.
        on_gpu: whether the runs want a GPU.

    Raises:
        UserError: no cluster; no Ray.
    """

    def __init__(self, sweep: Sweep, config: RayConfig, *, cores: int, on_gpu: bool) -> None:
        super().__init__(sweep)
        self._ray, self._config = import_ray(), config
        self._tasks: dict[str, Any] = {}
        self._connect(cores)
        self._cpus, self._gpus = max(config.cpus, sweep.threads), config.gpus
        if self._gpus is None:
            self._gpus = 1.0 if on_gpu and self._ray.cluster_resources().get("GPU") else 0.0
        resources = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        nodes = sorted({(node.get("CPU", 0), node.get("GPU", 0)) for node in resources})
        if not any(self._cpus <= cpus and self._gpus <= gpus for cpus, gpus in nodes):
            self.close()
            raise UserError(
                f"launcher.cpus={self._cpus} and launcher.gpus={self._gpus:g} are more than any node of the Ray "
                f"cluster has ({', '.join(f'{cpus:g} and {gpus:g}' for cpus, gpus in nodes)}); lower them, or no run "
                "could ever start."
            )

    def _connect(self, cores: int) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
        if self._config.address is None:
            own = {"num_cpus": cores, "object_store_memory": OBJECT_STORE_BYTES}
            options |= {"address": "local", "include_dashboard": False, **own}
        else:
            options["address"] = self._config.address
        for attempt in range(START_ATTEMPTS):
            try:
                self._ray.init(**options)
                return
            except Exception as error:
                self._ray.shutdown()
                if self._config.address is not None or attempt == START_ATTEMPTS - 1:
                    reason = " ".join(str(error).split()).removesuffix(".")
                    raise UserError(
                        f"launcher.address={self._config.address or 'null'}: no Ray cluster can be reached or started "
                        f"({reason}); check the address, or use launcher=local."
                    ) from error

    def start(self, names: Sequence[str]) -> None:
        """See `Launcher`."""
        task = self._ray.remote(max_calls=1)(perform)  # a worker for each run, which takes its memory with it
        for name in names:
            self._tasks[name] = task.options(
                name=name,
                num_cpus=self._cpus,
                num_gpus=self._gpus,
                max_retries=self._config.retries,
            ).remote(str(self.sweep.folder.resolve()), name, {})

    def under_way(self) -> bool:
        """See `Launcher`."""
        if not self._tasks:
            return False
        ended, left = self._ray.wait(list(self._tasks.values()), num_returns=len(self._tasks), timeout=0)
        for name, task in list(self._tasks.items()):
            if task in ended:
                del self._tasks[name]
                self._take(name, task)
        return bool(left)

    def _take(self, name: str, task: Any) -> None:
        try:
            self._ray.get(task)
        except self._ray.exceptions.TaskCancelledError:
            return
        except self._ray.exceptions.RayTaskError as error:
            self.sweep.fail(name, str(error.cause))
        except self._ray.exceptions.RayError as error:
            lost = " ".join(str(error).split()).split(". ")[0]
            self.sweep.fail(name, f"Ray lost it {self._config.retries + 1} times ({lost}).")

    def withdraw(self) -> None:
        """See `Launcher`."""
        for name, task in self._tasks.items():
            if self.sweep.job(name).state != RUNNING:  # also where it waits for a node in place of one that was lost
                self._ray.cancel(task)

    def close(self) -> None:
        """See `Launcher`."""
        self._ray.shutdown()
