"""Tables and files of results that several commands write."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policy_accel.files import append_text, replace_json
from policy_accel.launched import processes, speaks
from policy_accel.run_files import OPEN_LOOP


def score_table(results: Sequence[dict[str, Any]]) -> str:
    """Results of several runs (with their "run_dir"), one row each: a table in aligned columns.

    Success and score have their intervals; "ms/chunk" is the median time of one call of the policy, for all
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
        "score",
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
    """Write the newest result to evaluation.json and append it to evaluations.jsonl, which keeps them all; one without
    a score, of demonstrations, to open_loop.json."""
    if "score" not in result:
        replace_json(run_dir / OPEN_LOOP, result)
        return
    replace_json(run_dir / "evaluation.json", result)
    append_text(run_dir / "evaluations.jsonl", json.dumps(result) + "\n")


def words_of(options: argparse.Namespace) -> list[str]:
    """The words of a command that takes settings."""
    folder = [] if options.config_dir is None else ["--config-dir", str(options.config_dir)]
    return [options.command, *options.overrides, *folder]


def again(words: Sequence[str]) -> str:
    """The command line of `words`, as the user can start it again."""
    line = shlex.join(words)
    if processes() > 1:
        return f"torchrun ... -m policy_accel {line}"
    return f"{program()} {line}"


def program() -> str:
    """How the user started us, as the first word of a command line."""
    return shlex.quote(sys.argv[0] if Path(sys.argv[0]).name == "policy-accel" else "policy-accel")


def suggest(purpose: str, words: Sequence[object], *, quiet: bool = False) -> None:
    """Say on the standard error what a user would do next, as a line that can be pasted into a shell.

    Args:
        purpose: what for: "look at it".
        words: of the command, paths among them.
        quiet: nothing is said, for commands whose output a program reads.
    """
    if speaks() and not quiet:
        print(suggestion(purpose, [str(word) for word in words]), file=sys.stderr)


def suggestion(purpose: str, words: Sequence[str]) -> str:
    """The line of `suggest`."""
    return f"To {purpose}: {program()} {shlex.join(words)}"
