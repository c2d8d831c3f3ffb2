"""CPU-seconds until commands have done what they are for, of this checkout beside another.

    python benchmarks/start_up.py --beside ../before/.venv/bin/python

Every measurement is a process of its own, alone; in each round the sides take turns. CPU time (user and system) and not
the clock: machines are shared. `import torch` is the floor of whatever trains; "first update" is `policy-accel train
recipe=demo` (or images_demo) up to the end of its first update, and the "beside" side is another checkout's python.
OMP_NUM_THREADS=1, so that no run measures which number of threads is best. A first round does not count: it leaves the
bytecode of every module, without which a side compiles all that it imports. "import torch" is the control: code that
both sides have alike, so that its cost has to agree.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from results import RESULTS, write_result

START = "import sys, resource, os; from policy_accel.cli import main\n"
END = "; usage = resource.getrusage(resource.RUSAGE_SELF); os.write(2, b'CPU %f' % (usage.ru_utime + usage.ru_stime))"
COMMAND = START + "try: main(sys.argv[1:])\nexcept SystemExit: pass\nsys.stdout.flush()" + END
FIRST_UPDATE = (
    START + "from policy_accel.training import loop\n"
    "advance = loop.Run.advance\n"
    "def once(run):\n"
    f"    advance(run){END}; os._exit(0)\n"
    "loop.Run.advance = once\n"
    "main(sys.argv[1:])"
)
WHAT: dict[str, tuple[str, list[str]]] = {
    "import torch": ("import os, resource, torch" + END, []),
    "--help": (COMMAND, ["--help"]),
    "list tasks": (COMMAND, ["list", "tasks"]),
    "data inspect": (COMMAND, ["data", "inspect", "shipped:pusht_scripted.zarr.zip"]),
    "train --print-config": (COMMAND, ["train", "recipe=demo", "--print-config"]),
    "first update": (FIRST_UPDATE, ["train", "recipe=demo"]),
    "first update of images": (FIRST_UPDATE, ["train", "recipe=images_demo"]),
    "unknown environment": (COMMAND, ["train", "recipe=demo", "task.environment=Nope-v0"]),
}


def cpu_seconds(python: str, code: str, arguments: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        own = [*arguments, f"run_dir={folder}/run"] if arguments[:1] == ["train"] else arguments
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        done = subprocess.run([python, "-P", "-c", code, *own], capture_output=True, text=True, env=environment)
    _, found, seconds = done.stderr.rpartition("CPU ")
    if not found:
        raise RuntimeError(f"{arguments} failed: {done.stderr}")
    return float(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", help="python of another checkout")
    parser.add_argument("--only", choices=WHAT, nargs="+", default=list(WHAT), help="which of the commands")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=RESULTS / "start_up_cpu.json")
    arguments = parser.parse_args()
    sides = {"here": sys.executable, **({"beside": arguments.beside} if arguments.beside else {})}
    load = os.getloadavg()
    seconds: dict[str, dict[str, list[float]]] = {name: {side: [] for side in sides} for name in arguments.only}
    for number in range(-1, arguments.rounds):
        for name in arguments.only:
            code, own = WHAT[name]
            for side, python in sides.items() if number % 2 == 0 else reversed(sides.items()):
                spent = cpu_seconds(python, code, own)
                if number >= 0:
                    seconds[name][side].append(spent)
        print(f"round {number + 1} of {arguments.rounds}", flush=True)
    figures: dict[str, Any] = {}
    for name, by_side in seconds.items():
        figures[name] = {
            side: {"cpu_seconds": round(statistics.median(values), 3), "rounds": [round(value, 3) for value in values]}
            for side, values in by_side.items()
        }
        print(name, {side: figure["cpu_seconds"] for side, figure in figures[name].items()})
    write_result(arguments.output, {"load_average_before": [round(value, 2) for value in load], "commands": figures})


if __name__ == "__main__":
    main()
