"""Runs as jobs of SLURM, one job a run, which saves and is queued again when its time is up or another comes first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from policy_accel.errors import UserError
from policy_accel.extras import to_install
from policy_accel.files import replace_json
from policy_accel.parsing import read_record
from policy_accel.sweep.folder import DONE, FAILED, STOPPED, Sweep
from policy_accel.sweep.job import let_save, perform
from policy_accel.sweep.launcher import Launcher, SlurmConfig


def import_submitit() -> Any:
    """The package.

    Raises:
        UserError: it is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError(f"launcher=slurm needs the package submitit; {to_install('slurm')}") from error
    return submitit


class Task:
    """What a job does, and what it does when SLURM is about to end it."""

    def __call__(self, folder: str, name: str) -> str:
        """See `perform`."""
        return perform(folder, name, {})

    def checkpoint(self, folder: str, name: str) -> Any:
        """Called by submitit before the job is queued again: what it will do then, once the run has saved."""
        let_save()
        return import_submitit().helpers.DelayedSubmission(self, folder, name)


class SlurmLauncher(Launcher):
    """Hands jobs in, and finds those again that an earlier start handed in.

    Args:
        sweep: whose runs are trained, in a folder that all nodes see.
        config: of the launcher.

    Raises:
        UserError: no submitit, no SLURM, or options that it refuses.
    """

    def __init__(self, sweep: Sweep, config: SlurmConfig) -> None:
        super().__init__(sweep)
        self._submitit, self._config = import_submitit(), config
        self._book = sweep.folder / "slurm" / "jobs.json"
        self._jobs: dict[str, Any] = {}
        try:
            self._executor = self._submitit.AutoExecutor(
                folder=sweep.folder.resolve() / "slurm" / "%j",
                cluster=config.cluster,
                **{f"{config.cluster}_max_num_timeout": config.requeues},
            )
            self._executor.update_parameters(
                name="policy-accel",
                timeout_min=config.timeout,
                cpus_per_task=max(config.cpus, sweep.threads),
                gpus_per_node=config.gpus,
                mem_gb=config.memory,
                slurm_partition=config.partition,
                slurm_array_parallelism=config.slots or None,
                slurm_additional_parameters=dict(config.options) or None,
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"launcher=slurm cannot hand in jobs ({str(error).splitlines()[0].removesuffix('.')}); start it where "
                "sbatch is, or try it out with launcher.cluster=local."
            ) from error

    def start(self, names: Sequence[str]) -> None:
        """See `Launcher`."""
        self._jobs = self._still_queued(names)
        new = [name for name in names if name not in self._jobs]
        folder = str(self.sweep.folder.resolve())
        try:
            if new:
                with self._executor.batch():
                    jobs = [self._executor.submit(Task(), folder, name) for name in new]
                self._jobs |= dict(zip(new, jobs, strict=True))
        except self._submitit.core.utils.FailedJobError as error:
            raise UserError(f"SLURM took no job ({' '.join(str(error).split())}); see launcher.options.") from error
        replace_json(self._book, {name: job.job_id for name, job in self._jobs.items()})

    def _still_queued(self, names: Sequence[str]) -> dict[str, Any]:
        """Jobs of an earlier start that wait or run."""
        if self._config.cluster != "slurm" or not self._book.is_file():
            return {}
        known = read_record(self._book, "remove it, and look with squeue for jobs that still run")
        folder = self.sweep.folder.resolve() / "slurm" / "%j"
        jobs = {name: self._submitit.SlurmJob(folder, known[name]) for name in names if name in known}
        return {name: job for name, job in jobs.items() if not job.done(force_check=True)}

    def under_way(self) -> bool:
        """See `Launcher`."""
        for name, job in list(self._jobs.items()):
            state = self.sweep.job(name).state
            if state in (DONE, FAILED) or (state == STOPPED and self.sweep.stop_asked()):
                del self._jobs[name]
            elif job.done():
                del self._jobs[name]
                if not self.sweep.stop_asked():
                    self.sweep.fail(name, f"job {job.job_id} ended ({job.state}); its output is {job.paths.stderr}.")
        return bool(self._jobs)

    def withdraw(self) -> None:
        """See `Launcher`."""
        for name, job in list(self._jobs.items()):
            if self.sweep.job(name).started == 0:
                job.cancel(check=False)
                del self._jobs[name]

    def close(self) -> None:
        """See `Launcher`; jobs that are under way stay so."""
