"""The folder of a sweep: what the sweep is, how each run stands, and the wish to stop; shared by all who work on it.

    sweep.json           the runs and their settings
    NAME/                the run directory of the run NAME
    logs/NAME.log        what it printed
    jobs/NAME.json       how it stands
    jobs/NAME.lock       held by who trains it
    stop                 there while the sweep is being stopped

It needs neither torch nor Hydra, so that whoever looks after a run costs little.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TextIO

from policy_accel.errors import UserError
from policy_accel.files import explained, no_link, replace_json
from policy_accel.parsing import from_json, read_record

RECORD, LOCK, STOP = "sweep.json", ".lock", "stop"
WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"
AT_ONCE = "at once"


@dataclass(frozen=True)
class Job:
    """How a run of a sweep stands.

    Attributes:
        state: waiting, running, done, failed or stopped.
        said: of a run that failed: why, in a sentence.
        started: when the latest attempt did, in seconds since 1970; nought before the first.
        ended: the same of its end.
        first_step: updates that there were when it started.
    """

    state: str = WAITING
    said: str = ""
    started: float = 0.0
    ended: float = 0.0
    first_step: int = 0


@dataclass(frozen=True)
class Run:
    """A run of a sweep: its overrides, but for run_dir, and the updates that it is to make."""

    overrides: list[str]
    updates: int


@dataclass(frozen=True)
class Sweep:
    """What a sweep is, as its record says.

    Attributes:
        folder: that it works in, as it was given.
        runs: by name.
        threads: CPU threads of each run.
        config_dir: of the user's own choices.
        directory: the current folder of every run.
    """

    folder: Path
    runs: dict[str, Run] = field(default_factory=dict)
    threads: int = 1
    config_dir: str | None = None
    directory: str = "."

    def run_dir(self, name: str) -> Path:
        """The directory of a run."""
        return self.folder / name

    def log(self, name: str) -> Path:
        """What a run printed."""
        return self.folder / "logs" / f"{name}.log"

    def write(self) -> None:
        """Write the record.

        Raises:
            UserError: no permission, a full disk.
        """
        for folder in ("logs", "jobs"):
            with explained(self.folder / folder):
                (self.folder / folder).mkdir(parents=True, exist_ok=True)
        record = {key: value for key, value in asdict(self).items() if key != "folder"}
        replace_json(self.folder / RECORD, record)

    def job(self, name: str) -> Job:
        """How a run stands. One that was left running by a process that has gone is stopped."""
        job = self._noted(name)
        if job.state == RUNNING and not _is_held(self._lock_file(name)):
            now = self._noted(name)  # who had the lock may have noted the end before letting go
            return replace(job, state=STOPPED) if now == job else now
        return job

    def _noted(self, name: str) -> Job:
        try:
            return Job(**from_json(self._job_file(name).read_bytes()))
        except (OSError, ValueError, TypeError):
            return Job()

    def note(self, name: str, job: Job) -> None:
        """Record how a run stands."""
        replace_json(self._job_file(name), asdict(job))

    def fail(self, name: str, said: str) -> None:
        """Record that a run failed, and why, where it is not known yet how it ended."""
        job = self.job(name)
        if job.state not in (DONE, FAILED):
            self.note(name, replace(job, state=FAILED, said=said, ended=time.time()))

    def hold(self, name: str) -> TextIO:
        """The lock of a run, once whoever has it lets go; closing it lets go."""
        with explained(self._lock_file(name)):
            file = open(self._lock_file(name), "a", opener=no_link)  # noqa: SIM115 (open as long as the run)
            fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def _job_file(self, name: str) -> Path:
        return self.folder / "jobs" / f"{name}.json"

    def _lock_file(self, name: str) -> Path:
        return self.folder / "jobs" / f"{name}.lock"

    def ask_to_stop(self, how: str = "save first") -> None:
        """Let every run save and stop, or stop `AT_ONCE`, wherever it is trained."""
        with explained(self.folder / STOP):
            (self.folder / STOP).write_text(how)

    def stop_asked(self) -> str:
        """How the runs are to stop; "" while they are to go on."""
        with suppress(OSError):
            return (self.folder / STOP).read_text()
        return ""

    def go_on(self) -> None:
        """Take the wish to stop back, and forget how runs ended that are tried again."""
        with explained(self.folder):
            (self.folder / STOP).unlink(missing_ok=True)
            for name in self.runs:
                if self.job(name).state in (FAILED, STOPPED):
                    self._job_file(name).unlink(missing_ok=True)


def read_sweep(folder: Path) -> Sweep:
    """The sweep of a folder.

    Raises:
        UserError: there is none, or its record is damaged.
    """
    record = folder / RECORD
    with explained(record, "read"):
        if not record.is_file():
            raise UserError(f"{folder} is not the folder of a sweep: it has no {RECORD}; give the sweep_dir of one.")
    values = read_record(record, "choose another sweep_dir")
    try:
        runs = {name: Run(**run) for name, run in values.pop("runs").items()}
        return Sweep(folder, runs, **values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{record} is damaged ({type(error).__name__}); choose another sweep_dir.") from error


def open_folder(folder: Path, sweep_of: Callable[[Sweep | None], Sweep]) -> tuple[Sweep, TextIO]:
    """Make the folder of a sweep, or check that it is its own, and lock it.

    Args:
        folder: of the sweep.
        sweep_of: the sweep that is to be worked on, given the one that is there, if any.

    Returns:
        The sweep, and the lock; closing it lets go of the folder.

    Raises:
        UserError: other files are there, another process works there, no permission.
    """
    with explained(folder):
        old = folder.is_dir() and (folder / RECORD).exists()
        if folder.is_dir() and not old and any(path.name != LOCK for path in folder.iterdir()):
            raise UserError(f"sweep_dir={folder} is not empty and is not a sweep of ours; choose another sweep_dir.")
        sweep = sweep_of(read_sweep(folder) if old else None)
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / LOCK, "a", opener=no_link)  # noqa: SIM115 (open as long as the sweep)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise UserError(
                f"Another process works on sweep_dir={folder}; `policy-accel sweep --status {folder}` shows it."
            ) from error
    sweep.write()
    return sweep, lock


def _is_held(path: Path) -> bool:
    """Whether a process has the lock; asking holds nobody up, since those who want it wait for it."""
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
