"""Sentences that several commands print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policy_accel.evaluation.statistics import EXPLANATION
from policy_accel.files import append_text, replace_json


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
    metrics = "".join(f"{name} {value:.3g}, " for name, value in result.get("metrics", {}).items())
    return (
        f"Score {result['score']:.3f} ({result['confidence']:.0%} interval {low:.3f} to {high:.3f}), "
        f"success {result['success_rate']:.0%} ({success_low:.0%} to {success_high:.0%}), "
        f"{metrics}over {episodes} episodes from seed {result['start_seed']}, "
        f"{result['sampler']} with {result['network_evaluations']} evaluations a chunk."
    )


def describe_selection(bias: dict[str, Any]) -> str:
    """The score on the seeds that chose a checkpoint, on fresh ones and the difference, and what that means."""
    low, high = bias["difference_interval"]
    chosen, fresh = (_group(bias[name]) for name in ("chosen", "fresh"))
    if bias["chosen_by_score"]:
        seeds, why = "that chose it", f"This checkpoint has the best of {bias['candidates']} scores during training"
    else:
        seeds, why = "of the training", "This checkpoint was not chosen for its score"
    return (
        f"{why}: {chosen} on the seeds {seeds}, {fresh} on fresh ones, "
        f"difference {bias['difference']:+.3f} ({bias['confidence']:.0%} interval {low:+.3f} to {high:+.3f}).\n"
        f"{EXPLANATION} Quote the score on fresh seeds."
    )


def _group(group: dict[str, Any]) -> str:
    low, high = group["score_interval"]
    return f"score {group['score']:.3f} ({low:.3f} to {high:.3f}; {group['episodes']} from {group['start_seed']})"


def score_table(results: Sequence[dict[str, Any]]) -> str:
    """Results of several runs (with their "run_dir"), one row each: a table in aligned columns.

    Success and largest reward have their intervals; "ms/chunk" is the median time of one call of the policy, for all
    slots at once.
    """
    header = [
        "run",
        "task",
        "step",
        "episodes",
        "seeds",
        "max steps",
        "success",
        "max reward",
        "length",
        "ms/chunk",
        "s",
    ]
    rows = [_row(result) for result in results]
    if any("selection_bias" in result for result in results):
        header.append("fresh seeds")
        for row, result in zip(rows, results, strict=True):
            row.append(_interval(result["selection_bias"]["fresh"]) if "selection_bias" in result else "-")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in [header, *rows])
    return "\n".join(line.rstrip() for line in lines)


def _row(result: dict[str, Any]) -> list[str]:
    first, count = result["start_seed"], len(result["episodes"])
    low, high = result["success_interval"]
    latency = result.get("chunk_milliseconds")
    return [
        Path(result["run_dir"]).name,
        result["task"],
        str(result["step"]),
        str(count),
        f"{first}-{first + count - 1}",
        str(result["max_steps"]),
        f"{result['success_rate']:.2f} [{low:.2f}, {high:.2f}]",
        _interval(result),
        f"{result['mean_length']:.0f}",
        f"{latency['median']:.1f}" if latency else "-",
        f"{result['seconds']:.0f}",
    ]


def _interval(group: dict[str, Any]) -> str:
    low, high = group["score_interval"]
    return f"{group['score']:.3f} [{low:.3f}, {high:.3f}]"


def keep_evaluation(run_dir: Path, result: dict[str, Any]) -> None:
    """Write the newest result to evaluation.json and append it to evaluations.jsonl, which keeps them all."""
    replace_json(run_dir / "evaluation.json", result)
    append_text(run_dir / "evaluations.jsonl", json.dumps(result) + "\n")
