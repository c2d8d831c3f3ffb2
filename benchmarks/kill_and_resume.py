"""Kill a training run with SIGKILL at random moments, start the same command again, and compare it bit for bit with a
run that was never killed.

    python benchmarks/kill_and_resume.py --kills 20
    python benchmarks/kill_and_resume.py --kills 20 evaluation.overlap=true    # scored by a process of its own
    python benchmarks/kill_and_resume.py --kills 10 --simulated                # a thread writes the checkpoints

The run uses dropout, validation, rollouts and a checkpoint every five updates, so that kills meet all of them. A kill
comes a random fraction of a second after a randomly chosen checkpoint; every fifth one before the first checkpoint.
Weights, averages, moments and every score are compared. With --simulated the runs are on the CUDA device of the tests,
which is simulated: updates are captured, and checkpoints are written while the training goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
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
    "training.validate_every=25",
    "training.evaluate_every=100",
    "training.checkpoint.every=5",
    "training.logging.every=5",
    "task.max_steps=16",
    "evaluation.episodes=2",
    "evaluation.videos=0",
    "evaluation.workers=0",
]
ON_CPU = ["-m", "policy_accel", *ARGUMENTS, "training.device=cpu"]
SIMULATED = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1] / "tests")!r})
from support.simulated_cuda import SimulatedCuda
from policy_accel.cli import main
with SimulatedCuda():
    sys.exit(main(sys.argv[1:]))
"""
ON_SIMULATED = ["-c", SIMULATED, *ARGUMENTS, "training.device=cuda"]
LONGEST_WAIT = 120.0


def start(run_dir: Path, command: list[str]) -> subprocess.Popen[bytes]:
    with open(run_dir.with_suffix(".log"), "ab") as log:
        arguments = [sys.executable, *command, f"run_dir={run_dir}"]
        return subprocess.Popen(arguments, stdout=log, stderr=log, start_new_session=True)


def finish(run_dir: Path, command: list[str]) -> None:
    status = start(run_dir, command).wait(timeout=600)
    if status != 0:
        raise SystemExit(f"the run ended with status {status}:\n{run_dir.with_suffix('.log').read_text()[-2000:]}")


def outcome(run_dir: Path) -> dict[str, object]:
    """SHA-256 of the weights, averages and optimiser moments at the end, and every score by its step."""
    folder = run_dir / "checkpoints" / f"{STEPS:08d}"
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*.safetensors"))}
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {**files, "scores": {row["step"]: row["score"] for row in rows if "score" in row}}


def newest(run_dir: Path) -> int:
    names = [path.name for path in (run_dir / "checkpoints").glob("[0-9]*")]
    return max((int(name) for name in names if name.isdigit()), default=-1)


def kill_after(run_dir: Path, command: list[str], checkpoint: int, seconds: float) -> int | None:
    """Kill the run `seconds` after its checkpoint `checkpoint` (-1: after its start); the newest one then, or None when
    the run was over before."""
    process = start(run_dir, command)
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
    parser.add_argument("--simulated", action="store_true", help="run on the simulated CUDA device of the tests")
    parser.add_argument("--output", type=Path, default=RESULTS / "kill_and_resume.json")
    parser.add_argument("settings", nargs="*", help="further settings of the runs, key=value")
    options = parser.parse_args()
    command = [*(ON_SIMULATED if options.simulated else ON_CPU), *options.settings]
    moments = random.Random(options.seed)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        finish(whole, command)
        expected = outcome(whole)
        for attempt in range(3 * options.kills):
            early = len(rows) % 5 == 4
            target = -1 if early else moments.randrange(5, STEPS - 10)
            seconds = moments.uniform(1.0, 4.0) if early else moments.uniform(0.0, 0.3)
            run_dir = Path(scratch) / f"killed_{attempt}"
            killed_at = kill_after(run_dir, command, target, seconds)
            if killed_at is None or killed_at >= STEPS:
                continue
            finish(run_dir, command)
            rows.append({"newest_checkpoint": max(killed_at, 0), "equal": outcome(run_dir) == expected})
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
