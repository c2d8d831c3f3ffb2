"""Kill ranks of a run that torchrun keeps alive, and compare what it learns with a run of one process, undisturbed.

    python benchmarks/elastic_restart.py

`restarts`: one machine, two ranks; one of them, chosen at random, is killed several times with SIGKILL. `members`: two
machines' agents (both here) of one rank each; the second agent is killed with its rank, the first goes on alone, and
later the second comes back: 2, 1 and 2 ranks. The largest difference of any weight or average is recorded. Both end at
the same update as the undisturbed run; sums over ranks are in another order, so bits differ.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from results import RESULTS, write_result
from safetensors.torch import load_file

STEPS = 400
ARGUMENTS = [
    "-m",
    "policy_accel",
    "train",
    "recipe=demo",
    f"training.steps={STEPS}",
    "training.batch_size=32",
    "training.threads=1",
    "training.device=cpu",
    "training.validate_every=50",
    "training.logging.every=5",
    "training.checkpoint.every=10",
    "task.max_steps=16",
    "evaluation.episodes=2",
    "evaluation.videos=0",
    "evaluation.workers=0",
]
LONGEST_WAIT = 300.0
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


@contextlib.contextmanager
def started(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process group, which is gone after the block."""
    with open(log, "ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        yield process
    finally:
        for rank in ranks_of(process):  # each has a session of its own, and would go on without its agent
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def newest(run_dir: Path) -> int:
    return max((int(path.name) for path in (run_dir / "checkpoints").glob("[0-9]*") if path.name.isdigit()), default=0)


def wait_for(run_dir: Path, step: int, *agents: subprocess.Popen[bytes]) -> None:
    """Until the checkpoint of `step` is there."""
    deadline = time.monotonic() + LONGEST_WAIT
    while newest(run_dir) < step:
        if time.monotonic() > deadline or any(agent.poll() is not None for agent in agents):
            raise SystemExit(f"no checkpoint {step}:\n{run_dir.with_suffix('.log').read_text()[-3000:]}")
        time.sleep(0.02)


def wait_until_open(port: int) -> None:
    """Until somebody listens there."""
    deadline = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)


def ranks_of(agent: subprocess.Popen[bytes]) -> list[int]:
    """Process numbers of the ranks that an agent has started."""
    if agent.poll() is not None:
        return []
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    return [int(child) for child in children if b"policy_accel" in Path(f"/proc/{child}/cmdline").read_bytes()]


def difference(one: Path, other: Path) -> float:
    """Largest difference of any weight or average at the end."""
    found = 0.0
    for name in ("model", "ema"):
        a, b = (load_file(run / "checkpoints" / f"{STEPS:08d}" / f"{name}.safetensors") for run in (one, other))
        found = max(found, *(float((a[key].double() - b[key].double()).abs().max()) for key in a))
    return found


def restarts(run_dir: Path, kills: int, chance: random.Random) -> list[int]:
    """Train with two ranks, one of which is killed `kills` times; the newest checkpoints then."""
    agent = [*TORCHRUN, "--standalone", f"--max-restarts={kills}", "--nproc_per_node=2"]
    killed_at: list[int] = []
    with started([*agent, *ARGUMENTS, f"run_dir={run_dir}"], run_dir.with_suffix(".log")) as process:
        for kill in range(kills):
            wait_for(run_dir, max(newest(run_dir), (kill + 1) * STEPS // (kills + 2)), process)
            time.sleep(chance.uniform(0.0, 0.5))
            os.kill(chance.choice(ranks_of(process)), signal.SIGKILL)
            killed_at.append(newest(run_dir))
            print(f"killed a rank after checkpoint {killed_at[-1]}", flush=True)
            wait_for(run_dir, killed_at[-1] + 10, process)
        status = process.wait(timeout=LONGEST_WAIT)
    if status:
        raise SystemExit(run_dir.with_suffix(".log").read_text()[-3000:])
    return killed_at


def members(run_dir: Path) -> list[int]:
    """Train with two agents, then one, then two again; the newest checkpoints at the changes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    agent = [*TORCHRUN, "--nnodes=1:2", "--nproc_per_node=1", "--max-restarts=5", "--rdzv_backend=c10d"]
    agent += [f"--rdzv_endpoint=127.0.0.1:{port}", "--rdzv_id=run", "--rdzv_conf=last_call_timeout=15"]
    agent += ["--local_addr=127.0.0.1"]
    command, log = [*agent, *ARGUMENTS, f"run_dir={run_dir}"], run_dir.with_suffix(".log")
    changed: list[int] = []
    with started(command, log) as first:
        wait_until_open(port)  # the agent that comes first keeps the store, and must stay
        with started(command, log) as second:
            wait_for(run_dir, STEPS // 4, first, second)
        changed.append(newest(run_dir))
        print(f"one agent left after checkpoint {changed[-1]}", flush=True)
        wait_for(run_dir, changed[-1] + 40, first)
        changed.append(newest(run_dir))
        with started(command, log) as second:
            print(f"two again after checkpoint {changed[-1]}", flush=True)
            first.wait(timeout=LONGEST_WAIT)
            second.wait(timeout=LONGEST_WAIT)
            status = first.returncode or second.returncode
    if status:
        raise SystemExit(log.read_text()[-3000:])
    return changed


def sizes(log: Path) -> list[int]:
    """How many processes each part of a run had, as its heading says."""
    headings = [line for line in log.read_text().splitlines() if line.startswith("train: on ")]
    return [int(line.split()[2]) if " processes " in line else 1 for line in headings]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("restarts", "members"), nargs="+", default=["restarts", "members"])
    parser.add_argument("--output", type=Path, default=RESULTS / "elastic_restart_cpu.json")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    # Without it an agent that comes back waits in vain: the first one (torch 2.15) tells its address in the first round
    # alone.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    results: dict[str, Any] = {"steps": STEPS, "seed": options.seed}
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        subprocess.run([sys.executable, *ARGUMENTS, f"run_dir={whole}"], check=True, capture_output=True)
        for name in options.only:
            run_dir = Path(scratch) / name
            if name == "restarts":
                changed = restarts(run_dir, options.kills, random.Random(options.seed))
            else:
                changed = members(run_dir)
            results[name] = {
                "newest_checkpoints_at_the_changes": changed,
                "processes": sizes(run_dir.with_suffix(".log")),
                "largest_difference": difference(run_dir, whole),
            }
            print(name, results[name], flush=True)
    write_result(options.output, results)


if __name__ == "__main__":
    main()
