"""Where the time of an update goes on the CPU, by kinds of operations: of this checkout, or of another one.

    python benchmarks/profile_update.py --net small
    python benchmarks/profile_update.py --net small --beside FOLDER    # another checkout too

One thread, torch's profiler over all updates; shares are of the time within operations (self CPU time).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

RECIPES = {"small": "small", "reference": "diffusion_policy"}
KINDS = {
    "convolutions": ("conv",),
    "Mish": ("mish",),
    "group normalisation": ("group_norm",),
    "matrix products": ("mm", "linear"),
    "AdamW": ("adamw",),
    "averages": ("lerp",),
}


def shares(overrides: list[str], updates: int) -> dict[str, float]:
    """Share of each kind, and CPU milliseconds of an update while it is watched."""
    from core_beside import cost
    from torch.profiler import profile

    with profile() as watched:
        _, cpu = cost(overrides, updates, 2, 1)
    spent = {row.key.lower(): row.self_cpu_time_total for row in watched.key_averages() if "::" in row.key}
    total, found = sum(spent.values()), dict.fromkeys(KINDS, 0.0)
    for key, value in spent.items():
        for kind, parts in KINDS.items():
            if any(part in key for part in parts):
                found[kind] += value / total
                break
    found["everything else"] = 1.0 - sum(found.values())
    return {**{kind: round(share, 3) for kind, share in found.items()}, "cpu_milliseconds": round(1e3 * cpu, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=RECIPES, default="small")
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--beside", type=Path, help="another checkout, measured too")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    overrides = [f"recipe={RECIPES[options.net]}", "training.device=cpu", "evaluation.episodes=0"]
    overrides += [f"training.{name}=0" for name in ("validate_every", "evaluate_every", "checkpoint.every")]
    code = "import json, sys; from profile_update import shares; print(json.dumps(shares(*json.loads(sys.argv[1]))))"
    here = Path(__file__).resolve().parent
    sides = {}
    for name, folder in {"core": here.parent, **({"core beside": options.beside} if options.beside else {})}.items():
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", str(here)])}
        command = [sys.executable, "-c", code, json.dumps([overrides, options.updates])]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        sides[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, sides[name])
    from results import RESULTS, write_result

    output = options.output or RESULTS / f"profile_update_{options.net}_cpu.json"
    write_result(output, {"net": options.net, "sides": sides})


if __name__ == "__main__":
    main()
