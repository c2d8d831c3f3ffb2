"""Kill a training run with SIGKILL at random moments, start the same command again, and compare it bit for bit with a
run that was never killed.

    python benchmarks/kill_and_resume.py --kills 20

The run uses dropout, validation, rollouts and a checkpoint every five updates, so that kills meet all of them.
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

STEPS = 150
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
    "training.evaluate_every=50",
    "training.checkpoint.every=5",
    "training.logging.every=5",
    "task.max_steps=24",
    "evaluation.episodes=2",
    "evaluation.videos=0",
    "evaluation.workers=1",
]


def start(run_dir: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "policy_accel.cli", *ARGUMENTS, f"run_dir={run_dir}"]
    log = open(run_dir.with_suffix(".log"), "ab")  # noqa: SIM115
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def finish(run_dir: Path) -> float:
    began = time.monotonic()
    status = start(run_dir).wait(timeout=600)
    if status != 0:
        raise SystemExit(f"the run ended with status {status}:\n{run_dir.with_suffix('.log').read_text()[-2000:]}")
    return time.monotonic() - began


def digests(run_dir: Path) -> dict[str, str]:
    """SHA-256 of the weights, averages and optimiser moments at the end."""
    folder = run_dir / "checkpoints" / f"{STEPS:08d}"
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*.safetensors"))}


def progress_of(run_dir: Path) -> int:
    steps = [int(path.name) for path in (run_dir / "checkpoints").glob("[0-9]*") if path.name.isdigit()]
    return max(steps, default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "kill_and_resume.json")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        seconds = finish(whole)
        expected = digests(whole)
        while len(rows) < options.kills:
            run_dir = Path(scratch) / f"killed_{len(rows)}"
            process = start(run_dir)
            delay = moments.uniform(0.35, 1.0) * seconds  # before 0.35 the interpreter is still loading libraries
            try:
                process.wait(timeout=delay)
                continue
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            killed_at = progress_of(run_dir)
            finish(run_dir)
            rows.append(
                {"after_seconds": round(delay, 2), "last_checkpoint": killed_at, "equal": digests(run_dir) == expected}
            )
            print(rows[-1], flush=True)
    equal = sum(row["equal"] for row in rows)
    print(f"{equal} of {len(rows)} killed runs end with the same bits as the run that was never killed")
    write_result(
        options.output, {"kills": len(rows), "equal": equal, "steps": STEPS, "seed": options.seed, "runs": rows}
    )
    if equal != len(rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
