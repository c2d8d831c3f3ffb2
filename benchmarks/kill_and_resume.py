"""Kill a training run with SIGKILL at random moments, start the same command again, and compare it bit for bit with a
run that was never killed.

    python benchmarks/kill_and_resume.py --kills 20

The run uses dropout, validation, rollouts and a checkpoint every five updates, so that kills meet all of them. A kill
comes a random fraction of a second after a randomly chosen checkpoint; every fifth one before the first checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import RESULTS, write_result

STEPS = 300
ARGUMENTS = [
    "train",
    "recipe=demo",
    "model=transformer",
    "model.embedding_dim=32",
    "model.layers=2",
    "model.attention_dropout=0.1",
    f"training.steps={STEPS}",
    "training.batch_size=32",
    "training.device=cpu",
    "training.validate_every=25",
    "training.evaluate_every=100",
    "training.checkpoint.every=5",
    "training.logging.every=5",
    "task.max_steps=16",
    "evaluation.episodes=2",
    "evaluation.videos=0",
    "evaluation.workers=0",
]
LONGEST_WAIT = 120.0


def start(run_dir: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "policy_accel", *ARGUMENTS, f"run_dir={run_dir}"]
    with open(run_dir.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def finish(run_dir: Path) -> None:
    status = start(run_dir).wait(timeout=600)
    if status != 0:
        raise SystemExit(f"the run ended with status {status}:\n{run_dir.with_suffix('.log').read_text()[-2000:]}")


def digests(run_dir: Path) -> dict[str, str]:
    """SHA-256 of the weights, averages and optimiser moments at the end."""
    folder = run_dir / "checkpoints" / f"{STEPS:08d}"
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*.safetensors"))}


def newest(run_dir: Path) -> int:
    names = [path.name for path in (run_dir / "checkpoints").glob("[0-9]*")]
    return max((int(name) for name in names if name.isdigit()), default=-1)


def kill_after(run_dir: Path, checkpoint: int, seconds: float) -> int | None:
    """Kill the run `seconds` after its checkpoint `checkpoint` (-1: after its start); the newest one then, or None when
    the run was over before."""
    process = start(run_dir)
    deadline = time.monotonic() + LONGEST_WAIT
    while newest(run_dir) < checkpoint and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(seconds)
    if process.poll() is not None:
        return None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return newest(run_dir)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "kill_and_resume.json")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        finish(whole)
        expected = digests(whole)
        for attempt in range(3 * options.kills):
            early = len(rows) % 5 == 4
            target = -1 if early else moments.randrange(5, STEPS - 10)
            seconds = moments.uniform(1.0, 4.0) if early else moments.uniform(0.0, 0.3)
            run_dir = Path(scratch) / f"killed_{attempt}"
            killed_at = kill_after(run_dir, target, seconds)
            if killed_at is None or killed_at >= STEPS:
                continue
            finish(run_dir)
            rows.append({"newest_checkpoint": max(killed_at, 0), "equal": digests(run_dir) == expected})
            print(rows[-1], flush=True)
            if len(rows) == options.kills:
                break
    equal = sum(bool(row["equal"]) for row in rows)
    print(f"{equal} of {len(rows)} killed runs end with the same bits as the run that was never killed")
    figures = {"kills": len(rows), "equal": equal, "steps": STEPS, "seed": options.seed, "runs": rows}
    write_result(options.output, figures)
    if equal != options.kills:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
