"""Run directories made by hand, whose every number is known, for what reads runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

STEPS = (100, 200, 300, 400)
CHARTS = ["seeds", "differences", "loss", "validation-loss", "score", "target", "few-steps"]
"""Of the page of `write_sweep`."""
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=2'>&\"'"


def write_run(
    folder: Path,
    method: str = "baseline",
    seed: int = 1,
    *,
    losses: dict[int, float] | None = None,
    scores: dict[int, float] | None = None,
    episodes: dict[int, float] | None = None,
    few_steps: dict[int, float] | None = None,
    settings: dict[str, Any] | None = None,
    track: str = "robot",
) -> Path:
    """A run directory with these numbers; scores by update, episodes by their seed, few steps by evaluations."""
    folder.mkdir(parents=True)
    config = {
        "track": track,
        "task": {"name": "push"},
        "method": method,
        "seed": seed,
        "run_dir": str(folder),
        "training": {"steps": STEPS[-1], "device": "cpu", "optimizer": {"lr": 1e-3}},
        **(settings or {}),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows: list[dict[str, Any]] = [
        {"step": step, "loss": loss, "samples": 64 * step, "training_seconds": 0.5 * step}
        for step, loss in (losses or {}).items()
    ]
    rows += [{"step": step, "validation_loss": 2 * loss} for step, loss in (losses or {}).items()]
    rows += [{"step": step, "score": score} for step, score in (scores or {}).items()]
    write_lines(folder / "metrics.jsonl", rows)
    if scores:
        latest = {
            "step": STEPS[-1],
            "score": scores[max(scores)],
            "score_interval": [scores[max(scores)] - 0.1, scores[max(scores)] + 0.1],
            "success_rate": 0.5,
            "network_evaluations": 8,
            "episodes": [
                {"seed": number, "score": score, "success": score >= 1.0, "length": 10}
                for number, score in (episodes or {}).items()
            ],
        }
        (folder / "evaluation.json").write_text(json.dumps(latest))
        few = [{**latest, "score": s, "network_evaluations": n, "episodes": []} for n, s in (few_steps or {}).items()]
        write_lines(folder / "evaluations.jsonl", [*few, latest])
    checkpoint = folder / "checkpoints" / "last"
    checkpoint.mkdir(parents=True)
    state = {"step": STEPS[-1], "threads": 2, "precision": "fp32", "matmul_precision": "highest", "data": "abcdef"}
    state |= {"device": "EPYC", "torch": "2.15.0", "policy-accel": "0.1.0", "python": "3.11.7"}
    (checkpoint / "state.json").write_text(json.dumps(state))
    return folder


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_film(path: Path, frames: int = 12) -> None:
    """An mp4 of 32 x 32 px, 10 frames a second, that grows brighter."""
    from policy_accel.evaluation.video import VideoWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = VideoWriter(path, 10)
    for number in range(frames):
        writer.add(np.full((32, 32, 3), 10 * number, dtype=np.uint8))
    writer.finish()


def write_sweep(
    folder: Path, methods: tuple[str, ...] = ("baseline", "kl"), seeds: tuple[int, ...] = (1, 2, 3)
) -> Path:
    """A sweep whose scores are known: of method m (0, 1, ...), seed s at update u: u / 1000 + m / 10 + s / 100."""
    names = {}
    for number, method in enumerate(methods):
        for seed in seeds:
            name = f"{method}-seed{seed}"
            names[name] = {"overrides": [f"method={method}", f"seed={seed}"], "updates": STEPS[-1]}
            write_run(
                folder / name,
                method,
                seed,
                losses={step: (1 + number + 0.1 * seed) / step for step in STEPS},
                scores={step: score_of(number, seed, step) for step in STEPS},
                episodes=dict.fromkeys((100, 101), score_of(number, seed, STEPS[-1])),
                few_steps={1: 0.1 * seed, 2: 0.2 * seed},
                settings={"acceleration": {"path": {"name": "single" if number == 0 else "shared"}}},
            )
    (folder / "sweep.json").write_text(json.dumps({"runs": names, "threads": 1}))
    return folder


def score_of(number: int, seed: int, step: int) -> float:
    """The score of `write_sweep`."""
    return round(step / 1000 + number / 10 + seed / 100, 4)
