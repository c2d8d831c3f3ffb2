"""What a distilled student gives, and what it costs, beside its teacher.

    python benchmarks/distillation.py runs/teacher --student "--evaluations 1 run_dir=runs/one" \
        --student "--evaluations 1 training.steps=100 run_dir=runs/short" --sampling="--sampling-steps 8" \
        --sampling="--sampling-times 99,25" --also="--sampling-times 99,25" --score="--episodes 200 --seed 300000"

Every student is trained by `policy-accel distill` (one that is trained already is left alone), and scored as it is
sampled by itself and as `--also` says. A score that a run has in its evaluations.jsonl already is taken from there.
Policies are compared episode by episode.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from results import RESULTS, write_result

from policy_accel.track import track_of_run
from policy_accel.training.build import build_update

COMMAND = [sys.executable, "-m", "policy_accel"]
OF_THIS_MACHINE = ("run_dir=", "evaluation.")
KEPT = ("score", "score_interval", "success_rate", "network_evaluations", "sampling_times", "images", "measures")


def scored(run_dir: Path, how: list[str], sampling: str = "") -> dict[str, Any]:
    """The newest result of `evaluate` with these words, which is made when there is none."""
    words, seed = shlex.split(sampling), int(how[how.index("--seed") + 1])
    settings = track_of_run(run_dir).read(run_dir).sampling
    times, steps = settings.times, settings.steps
    if words:
        option, value = words
        times = [float(part) for part in value.split(",")] if option == "--sampling-times" else None
        steps = 0 if times else int(value)
    known = run_dir / "evaluations.jsonl"
    for line in reversed(known.read_text().splitlines() if known.is_file() else []):
        result = json.loads(line)
        its_times = result.get("sampling_times")
        alike = its_times == times if times or its_times else result["sampling_steps"] == steps
        if alike and result.get("start_seed", result.get("seed")) == seed:
            return dict(result)
    words = ["evaluate", str(run_dir), *how, *words, "--json"]
    done = subprocess.run([*COMMAND, *words], check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def paired(result: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Mean difference over the episodes that both have, with 1.96 standard errors."""
    scores = [{row["seed"]: row["score"] for row in part["episodes"]} for part in (result, other)]
    both = sorted(scores[0].keys() & scores[1].keys())
    differences = np.array([scores[0][seed] - scores[1][seed] for seed in both])
    error = 1.96 * differences.std(ddof=1) / len(both) ** 0.5
    return {"difference": float(differences.mean()), "half_width": float(error), "episodes": len(both)}


def cost(run_dir: Path, teacher: Path, rounds: int) -> dict[str, float]:
    """CPU milliseconds of an update of a student and of a plain one of its network and batch, in turns; medians."""
    updates, spent = {}, dict[str, list[float]]()
    for name, folder in (("student", run_dir), ("plain", teacher)):
        track = track_of_run(folder)
        config = track.read(folder)
        config.training.threads = 1
        updates[name] = build_update(track.build(config), config.training, config.seed)
    for step in range(1 + rounds):
        for name, update in updates.items():
            began = time.process_time()
            update(step)
            spent.setdefault(name, []).append(1e3 * (time.process_time() - began))
    found = {f"{name}_ms": float(np.median(values[1:])) for name, values in spent.items()}
    return {**found, "ratio": found["student_ms"] / found["plain_ms"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--student", action="append", default=[], metavar="WORDS", help="of `distill`, with run_dir=")
    parser.add_argument(
        "--sampling", action="append", default=[], metavar="WORDS", help="of `evaluate`, for the teacher"
    )
    parser.add_argument("--also", action="append", default=[], metavar="WORDS", help="the same, for students too")
    parser.add_argument("--score", default="", metavar="WORDS", help="of `evaluate`, with --seed")
    parser.add_argument("--rounds", type=int, default=10, help="updates whose cost is measured; 0 for none")
    parser.add_argument("--output", type=Path, default=RESULTS / "distillation_cpu.json")
    options = parser.parse_args()
    how = shlex.split(options.score)
    of_teacher = [scored(options.teacher, how, sampling) for sampling in options.sampling]
    most = max(of_teacher, key=lambda result: int(result["network_evaluations"]))
    rows = []
    for words in options.student:
        arguments = shlex.split(words)
        run_dir = Path(next(word for word in arguments if word.startswith("run_dir=")).partition("=")[2])
        subprocess.run([*COMMAND, "distill", str(options.teacher), *arguments], check=True, stdout=subprocess.DEVNULL)
        scores = [scored(run_dir, how, sampling) for sampling in ("", *options.also)]
        results = {result["network_evaluations"]: result for result in scores}.values()
        row: dict[str, Any] = {"distill": " ".join(word for word in arguments if not word.startswith(OF_THIS_MACHINE))}
        for result in results:
            entry = {name: result[name] for name in KEPT if name in result}
            alike = [other for other in of_teacher if other["network_evaluations"] == result["network_evaluations"]]
            if "episodes" in result:
                entry["minus_teacher_at_its_most"] = paired(result, most)
                entry |= {"minus_teacher_at_as_many": paired(result, alike[0])} if alike else {}
            row.setdefault("scores", []).append(entry)
        if options.rounds:
            row["cost"] = cost(run_dir, options.teacher, options.rounds)
        rows.append(row)
    teacher = [{name: result[name] for name in KEPT if name in result} for result in of_teacher]
    write_result(options.output, {"teacher": teacher, "students": rows})


if __name__ == "__main__":
    main()
