"""Memory of the processes that train a DiT on CPUs: one, two with all weights each, two with a share each.

    python benchmarks/sharded_memory.py --model dit_b

Each side makes two updates with the same two samples an update; a process tells what it holds between updates, after
the allocator has given back what is free. The model is made whole before it is shared out, so at the start each process
holds it once.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

SIDES = {"one process": (1, False), "two, all weights each": (2, False), "two, a share each": (2, True)}
UPDATES = 2


def work(model: str, shard: bool) -> dict[str, Any]:
    """What this process of a side measures."""
    import torch

    from policy_accel.images.track import IMAGES
    from policy_accel.training.build import build_update
    from policy_accel.training.ranks import joined

    settings = ["evaluation.samples=0", "evaluation.curve_samples=0", "evaluation.grid=0", "training.ema.lengths=[]"]
    network = ["task=shapes", "recipe=images_small", f"model={model}", "training.batch_size=2", "training.threads=1"]
    config = IMAGES.config([*network, *settings, f"training.shard={str(shard).lower()}"])
    with joined(torch.device("cpu")) as ranks:
        update = build_update(IMAGES.build(config), config.training, config.seed, ranks)
        losses = [float(update(step)[0]) for step in range(UPDATES)]
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        held = int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])
        return {
            "parameters": sum(parameter.numel() for parameter in update.ema.model.parameters()),
            "losses": losses,
            "gigabytes": round(held / 2**20, 2),
        }


def measure(model: str, processes: int, shard: bool) -> list[dict[str, Any]]:
    """The processes of a side, each in a Python of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--model", model, "--worker", *(["--shard"] if shard else [])]
    place = {"WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    started = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **{name: str(value) for name, value in {**place, "RANK": rank}.items()}},
        )
        for rank in range(processes)
    ]
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"a process ended with {[process.returncode for process in started]}: is there memory enough?")
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def main() -> None:
    from results import RESULTS, write_result

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dit_b")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--shard", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=RESULTS / "sharded_memory_cpu.json")
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(options.model, options.shard)))
        return
    sides = {}
    for name, (processes, shard) in SIDES.items():
        sides[name] = measure(options.model, processes, shard)
        print(name, sides[name], flush=True)
    write_result(options.output, {"model": options.model, "sides": sides})


if __name__ == "__main__":
    main()
