"""Training one run of a sweep in a process of its own: the same work on this machine, on Ray and on SLURM."""

from __future__ import annotations

import contextlib
import os
import runpy
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from policy_accel.errors import UserError
from policy_accel.files import explained
from policy_accel.quoting import quoted
from policy_accel.sweep.folder import AT_ONCE, DONE, FAILED, RUNNING, STOPPED, Job, Sweep, read_sweep
from policy_accel.sweep.standing import COMMAND, logged

START = "from policy_accel.sweep.job import main; main()"
POLL_SECONDS = 0.3
SAVE_SECONDS = 60.0
"""Until a run that was asked to save and stop is ended."""
INTERRUPTED = 130
SENTENCE = "policy-accel: "

_UNDER_WAY: list[int] = []


def perform(folder: str, name: str, environment: Mapping[str, str]) -> str:
    """Train the run `name` of the sweep in `folder`, or go on with it; wait until it is done, failed or stopped.

    Whoever trained it before and still saves is waited for. When this process dies, the run saves and ends.

    Args:
        folder: of the sweep; a relative one from the current folder.
        name: of the run.
        environment: variables of the run's process beside those of this one.

    Returns:
        How it ended: "done", "failed" or "stopped".

    Raises:
        UserError: the folder cannot be read or written.
    """
    sweep = read_sweep(Path(folder))
    with sweep.hold(name) as lock:
        if sweep.job(name).state == DONE:
            return DONE
        job = Job(RUNNING, started=time.time(), first_step=logged(sweep.run_dir(name)).step)
        if sweep.stop_asked():
            return _ended(sweep, name, job, STOPPED, "")
        sweep.note(name, job)
        with explained(sweep.log(name)), open(sweep.log(name), "ab") as log:
            begin = log.tell()
            process = _start(sweep, name, environment, log.fileno(), lock.fileno())
            _UNDER_WAY.append(process.pid)
            try:
                status = _wait(sweep, process)
            except BaseException:  # this process is to leave it, and someone will start the run again
                _end(process)
                sweep.note(name, Job(first_step=job.first_step))
                raise
            finally:
                _UNDER_WAY.remove(process.pid)
        if status == 0:
            return _ended(sweep, name, job, DONE, "")
        if status == INTERRUPTED or sweep.stop_asked():
            return _ended(sweep, name, job, STOPPED, "")
        return _ended(sweep, name, job, FAILED, _reason(sweep.log(name), begin, status))


def arguments(sweep: Sweep, name: str) -> list[str]:
    """The command line of `policy-accel train` for a run."""
    folder = [] if sweep.config_dir is None else ["--config-dir", sweep.config_dir]
    return ["train", *sweep.runs[name].overrides, f"run_dir={quoted(str(sweep.run_dir(name)))}", *folder]


def main() -> None:
    """The process of a run: `policy-accel train`, which saves and ends when the process that started it has gone."""
    parent = int(sys.argv.pop(1))
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # SLURM's warning, which whoever started us acts upon
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    runpy.run_module("policy_accel", run_name="__main__", alter_sys=True)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    print("The process that looked after this run has gone: it saves and ends.", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVE_SECONDS)
    os._exit(1)


def _start(sweep: Sweep, name: str, environment: Mapping[str, str], log: int, lock: int) -> subprocess.Popen[bytes]:
    """In a process group of its own, so that Ctrl-C in a terminal reaches the sweep alone; it holds the lock too."""
    words = arguments(sweep, name)
    os.write(log, f"{COMMAND}{shlex.join(words)}\n".encode())
    search_path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", START, str(os.getpid()), *words],
            env=os.environ | {"OMP_NUM_THREADS": str(sweep.threads), "PYTHONPATH": search_path} | dict(environment),
            cwd=sweep.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lock],
            process_group=0,
        )
    except OSError as error:
        raise UserError(f"{name} cannot be started in the folder {sweep.directory} ({error.strerror}).") from error


def _wait(sweep: Sweep, process: subprocess.Popen[bytes]) -> int:
    """Its exit status; passes the wish to stop on."""
    asked = ""
    while True:
        try:
            return process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            before, asked = asked, sweep.stop_asked()
        if asked == AT_ONCE:
            process.kill()
        elif asked and not before:
            process.terminate()


def let_save() -> None:
    """Have the runs that this process looks after save and end, and wait for it; for the handler of a signal."""
    deadline = time.monotonic() + SAVE_SECONDS
    for process in _UNDER_WAY:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
    for process in _UNDER_WAY:
        with contextlib.suppress(ChildProcessError):
            while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                if time.monotonic() > deadline:
                    break
                time.sleep(POLL_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let it save, if it still runs."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(SAVE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _ended(sweep: Sweep, name: str, job: Job, state: str, said: str) -> str:
    sweep.note(name, Job(state, said, job.started, time.time(), job.first_step))
    return state


def _reason(log: Path, begin: int, status: int) -> str:
    """Why a run failed: the sentence that it ended with, or the last line of its traceback."""
    with open(log, "rb") as file:
        file.seek(begin)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    if status < 0:
        return f"it was ended by signal {-status} ({signal.strsignal(-status)}); its log is {log}."
    sentences = [line.removeprefix(SENTENCE) for line in lines if line.startswith(SENTENCE)]
    if status == 2 and sentences:
        return sentences[-1]
    return f"{lines[-1]} (exit status {status}; its log is {log})"
