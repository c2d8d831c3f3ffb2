"""Sentences that several commands print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from policy_accel.files import explained, replace_json


def describe_result(result: dict[str, Any]) -> str:
    """What a score says, for a robot's episodes or for images."""
    return describe_images(result) if "measures" in result else describe_score(result)


def describe_images(result: dict[str, Any]) -> str:
    """The measures of generated images beside their floors, and how the images were made."""
    from policy_accel.images.metrics import table

    guidance = f", guidance {result['guidance']:g}" if result["guidance"] != 1 else ""
    return (
        f"{result['images']} images by {result['sampler']} with {result['network_evaluations']} network evaluations "
        f"each{guidance}, seed {result['seed']}:\n{table(result['measures'])}"
    )


def describe_score(result: dict[str, Any]) -> str:
    """Score, success and their intervals in one line."""
    low, high = result["score_interval"]
    success_low, success_high = result["success_interval"]
    episodes = len(result["episodes"])
    return (
        f"Score {result['score']:.3f} ({result['confidence']:.0%} interval {low:.3f} to {high:.3f}), "
        f"success {result['success_rate']:.0%} ({success_low:.0%} to {success_high:.0%}), "
        f"over {episodes} episodes from seed {result['start_seed']}, "
        f"{result['sampler']} with {result['network_evaluations']} evaluations a chunk."
    )


def keep_evaluation(run_dir: Path, result: dict[str, Any]) -> None:
    """Write the newest result to evaluation.json and append it to evaluations.jsonl, which keeps them all."""
    replace_json(run_dir / "evaluation.json", result)
    history = run_dir / "evaluations.jsonl"
    with explained(history), open(history, "a") as file:
        file.write(json.dumps(result) + "\n")
