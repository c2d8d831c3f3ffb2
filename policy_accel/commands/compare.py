"""`policy-accel compare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from policy_accel.commands.output import suggest
from policy_accel.comparison.compare import DIFFERENCE, compare
from policy_accel.comparison.result import MADE_BY, Comparison
from policy_accel.comparison.scores import SCORES, ScoredRun, scored_runs
from policy_accel.comparison.table import COLUMNS, csv_table, text_table
from policy_accel.errors import UserError, did_you_mean
from policy_accel.files import check_file, check_writable, explained, replace_json, replace_text

HEAD_BYTES = 1000
PNG = b"\x89PNG"
OURS = (f'{{\n  "made_by": "{MADE_BY}"'.encode(), ",".join(COLUMNS).encode())
"""How the JSON and the CSV of a comparison begin."""


def run_compare(options: argparse.Namespace) -> int:
    """Print a comparison of runs, and write it where asked."""
    outputs = [path for path in (options.json, options.csv, options.png) if path is not None]
    for place, path in enumerate(outputs):
        if path.resolve() in (other.resolve() for other in outputs[:place]):
            raise UserError(f"{path} is given for two files; choose another name for one of them.")
        _check_output(path)
    runs = scored_runs(options.runs, measure=options.measure, checkpoint=options.checkpoint)
    if options.task is not None:
        runs = _of_task(runs, options.task)
    difference = options.difference or (DIFFERENCE if options.measure in SCORES else None)
    comparison = compare(
        runs,
        options.baseline,
        measure=options.measure,
        confidence=options.confidence,
        difference=difference,
        pooled=options.pooled,
    )
    print(_shown(comparison))
    if options.json is not None:
        replace_json(options.json, comparison.to_json())
    if options.csv is not None:
        replace_text(options.csv, csv_table(comparison))
    if options.png is not None:
        from policy_accel.comparison.figure import draw

        draw(comparison, options.png)
    suggest(
        "see their curves on one page",
        ["report", *(options.runs if options.task is None else [run.run_dir for run in runs])],
    )
    return 0


def _check_output(path: Path) -> None:
    """That a file can be written there, before anything is worked out."""
    check_file(path)
    with explained(path):
        if path.exists() and not _is_ours(path):
            raise UserError(f"{path}: exists, was not made by compare and is not overwritten; choose another name.")
        path.parent.mkdir(parents=True, exist_ok=True)
    check_writable(path.parent)


def _is_ours(path: Path) -> bool:
    """Whether a file is of an earlier comparison, or empty."""
    with open(path, "rb") as file:
        beginning = file.read(HEAD_BYTES)
    picture = beginning.startswith(PNG) and MADE_BY.encode() in beginning
    return not beginning or picture or beginning.startswith(OURS)


def _of_task(runs: list[ScoredRun], task: str) -> list[ScoredRun]:
    known = sorted({run.task for run in runs if run.task})
    if task not in known:
        raise UserError(f"--task '{task}' is no task of these runs; {did_you_mean(task, known)}")
    return [run for run in runs if run.task == task]


def _shown(comparison: Comparison) -> str:
    sentences = [one.sentence for one in comparison.differences]
    parts = [text_table(comparison), sentences, comparison.notes, [comparison.summary]]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)
