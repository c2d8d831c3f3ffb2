"""Kill sweeps of two methods and two seeds half-way, start the same command again, and compare every run bit for bit
with a sweep that nobody disturbed.

    python benchmarks/killed_sweeps.py

- local: the process group of the sweep is killed; its runs, which have groups of their own, save and end.
- power cut: the runs are killed too.
- ray: the worker of a run is killed, on a Ray cluster of this machine.
- ray, sweep: the process group of the sweep is killed, and with it the cluster.
- slurm: submitit's local executor, undisturbed.

Weights, averages, moments and scores are compared. The runs have dropout, rollouts and one thread each.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from results import RESULTS, write_result

STEPS = 400
ARGUMENTS = [
    "recipe=demo",
    "model=transformer",
    "model.embedding_dim=32",
    "model.layers=2",
    "model.attention_dropout=0.1",
    f"training.steps={STEPS}",
    "training.batch_size=32",
    "training.device=cpu",
    "training.threads=1",
    "training.checkpoint.every=20",
    "training.logging.every=20",
    "task.max_steps=16",
    "evaluation.episodes=2",
    "evaluation.videos=0",
    "evaluation.workers=0",
    "method=baseline,kl",
    "seed=1,2",
]
NAMES = [f"{method}-seed{seed}" for method in ("baseline", "kl") for seed in (1, 2)]
START = "from policy_accel.sweep.job import main; main()"
LONGEST_WAIT = 900.0


def start(folder: Path, settings: list[str]) -> subprocess.Popen[bytes]:
    with open(folder.with_suffix(".log"), "ab") as log:
        words = [sys.executable, "-m", "policy_accel", "sweep", *ARGUMENTS, f"sweep_dir={folder}", *settings]
        return subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)


def finish(folder: Path, settings: list[str]) -> None:
    status = start(folder, settings).wait(timeout=LONGEST_WAIT)
    if status != 0:
        raise SystemExit(f"the sweep ended with status {status}:\n{folder.with_suffix('.log').read_text()[-2000:]}")


def step_of(folder: Path, name: str) -> int:
    log = folder / name / "metrics.jsonl"
    rows = log.read_text().splitlines() if log.is_file() else []
    return max((json.loads(row)["step"] for row in rows if row.endswith("}")), default=0)


def half_way(folder: Path) -> None:
    """Wait until half of all updates are made and a run is between its first and its last one."""
    deadline = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < deadline:
        steps = [step_of(folder, name) for name in NAMES]
        if sum(steps) > 2 * STEPS and any(0 < step < STEPS for step in steps):
            return
        time.sleep(0.05)
    raise SystemExit("it never came half-way")


def runs_of(folder: Path) -> dict[int, int]:
    """Processes of runs of the sweep, and those that look after them."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if START in words and any(f"{folder}/" in word for word in words):
            found[int(process.name)] = int(words[words.index(START) + 1])
    return found


def kill_group(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def disturb_sweep(folder: Path, settings: list[str]) -> None:
    process = start(folder, settings)
    half_way(folder)
    kill_group(process)
    finish(folder, settings)


def cut_power(folder: Path, settings: list[str]) -> None:
    process = start(folder, settings)
    half_way(folder)
    os.kill(process.pid, signal.SIGSTOP)  # so that it starts nothing more
    for run in runs_of(folder):
        os.kill(run, signal.SIGKILL)
    kill_group(process)
    finish(folder, settings)


def disturb_worker(folder: Path, settings: list[str]) -> None:
    process = start(folder, settings)
    half_way(folder)
    os.kill(next(iter(runs_of(folder).values())), signal.SIGKILL)
    if process.wait(timeout=LONGEST_WAIT) != 0:
        raise SystemExit(folder.with_suffix(".log").read_text()[-2000:])


def outcome(folder: Path, name: str) -> dict[str, object]:
    """SHA-256 of weights, averages and moments at the end, and the score."""
    last = folder / name / "checkpoints" / f"{STEPS:08d}"
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(last.glob("*.safetensors"))}
    return {**files, "score": json.loads((folder / name / "evaluation.json").read_text())["score"]}


WAYS: dict[str, tuple[Callable[[Path, list[str]], None], list[str]]] = {
    "local": (disturb_sweep, ["launcher.slots=2"]),
    "power cut": (cut_power, ["launcher.slots=2"]),
    "ray": (disturb_worker, ["launcher=ray"]),
    "ray, sweep": (disturb_sweep, ["launcher=ray"]),
    "slurm": (finish, ["launcher=slurm", "launcher.cluster=local"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULTS / "killed_sweeps.json")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        finish(whole, ["launcher.slots=2"])
        for way, (disturb, settings) in WAYS.items():
            folder = Path(scratch) / way.replace(", ", "_").replace(" ", "_")
            disturb(folder, settings)
            equal = sum(outcome(folder, name) == outcome(whole, name) for name in NAMES)
            starts = sum(log.read_text().count("$ policy-accel") for log in (folder / "logs").glob("*.log"))
            rows.append({"way": way, "runs": len(NAMES), "equal": equal, "starts": starts})
            print(rows[-1], flush=True)
    write_result(options.output, {"updates": STEPS, "ways": rows})


if __name__ == "__main__":
    main()
